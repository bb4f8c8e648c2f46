/**
 * Why the gateway closes a connection, and the WebSocket close code of each reason. 4000 to 4099 and the 10xx ones
 * invite the client to come back and resume; from 4400 on, coming back the same way would end the same way.
 */
export const closeCodes = {
  internal: 1011,
  restart: 1012,
  overload: 1013,
  slow_consumer: 4001,
  heartbeat: 4002,
  auth_expired: 4003,
  position_lost: 4004,
  rate_limited: 4005,
  bad_request: 4400,
  unauthorized: 4401,
  connect_timeout: 4402,
  forbidden: 4403,
  connection_limit: 4404,
  revoked: 4405,
} as const;

export type CloseReason = keyof typeof closeCodes;
