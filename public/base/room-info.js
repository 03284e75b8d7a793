import { within } from './dom.js';
import { SERVER } from './server.js';

/**
 * What a join would lead to now: { status, said, refusal }, the HTTP status, the JSON of the answer, and the code that a join would
 * be refused with, '' if it would not be, null if that is unknown. Null without an answer.
 */
export async function roomInfo(room, token) {
  const url = new URL('room-info', SERVER);
  url.searchParams.set('room', room);
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const answer = await fetch(url, { headers, signal: within(5_000) }).catch(() => null);
  const said = await answer?.json().catch(() => null);
  if (!answer) return null;
  const { status } = answer;
  const refused = token && [401, 403].includes(status);
  return { status, said, refusal: refused ? (said?.code ?? 'token') : status === 200 ? (said?.refused ?? '') : null };
}
