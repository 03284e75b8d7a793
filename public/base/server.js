import { within } from './dom.js';

/** The server's address: that of the page's files. A proxy may serve them below a path, such as /meet/. */
export const SERVER = new URL('..', import.meta.url);

/** What a join would lead to now: { status, said }, the HTTP status and the JSON of the answer; null without one. */
export async function roomInfo(room, token) {
  const url = new URL('room-info', SERVER);
  url.searchParams.set('room', room);
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const answer = await fetch(url, { headers, signal: within(5_000) }).catch(() => null);
  const said = await answer?.json().catch(() => null);
  return answer && { status: answer.status, said };
}
