/**
 * Rows read from the database itself, in the log's own mapping of values: what this gives for a row is, value for value,
 * what the log has as `after` for it. Columns that the catalogue excludes are left out here, too.
 */
export interface DatabaseRows {
  /**
   * The row as JSON text; undefined when there is none.
   * @param table `<schema>.<table>`
   * @param key the values of its primary key in key order: a string's content, any other JSON value as it is written
   * @throws HeadwaterError `unknown_table` when the table is not captured; `bad_key` when the values cannot be a key of it;
   * anything else means that the database could not be asked
   */
  readRow(table: string, key: readonly string[]): Promise<string | undefined>;
}
