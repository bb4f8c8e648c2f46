/**
 * What was asked for, or undefined when it does not come in time. A process that has been busy for all of that time still takes what has
 * arrived meanwhile: or one long turn of the loop would look as if nobody answered.
 */
export async function within<T>(ms: number, asked: Promise<T>): Promise<T | undefined> {
  let timer: NodeJS.Timeout | undefined;
  let turn: NodeJS.Immediate | undefined;
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => (turn = setImmediate(resolve, undefined)), ms);
  });
  try {
    return await Promise.race([asked, late]);
  } finally {
    clearTimeout(timer);
    clearImmediate(turn);
  }
}
