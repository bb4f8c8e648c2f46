/** Lua: does the record of what stands beside a live state say that it is this one still? `wanted`: `<state>:<making>`. */
export const standsLua = `
local function stands(record, wanted)
  local standing = redis.call('HMGET', record, 'state', 'making')
  return (standing[1] or '') .. ':' .. (standing[2] or '') == wanted
end`;

/** Lua that exchanges two keys, either of which may be missing. */
export const swapLua = `
local function swap(a, b, by)
  local isA, isB = redis.call('EXISTS', a) == 1, redis.call('EXISTS', b) == 1
  if isA then redis.call('RENAME', a, by) end
  if isB then redis.call('RENAME', b, a) end
  if isA then redis.call('RENAME', by, b) end
end`;
