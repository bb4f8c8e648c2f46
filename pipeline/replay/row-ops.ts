/** The operations of row events. */
export const rowOps = ['insert', 'update', 'delete', 'truncate', 'read'] as const;
export type RowOp = (typeof rowOps)[number];
