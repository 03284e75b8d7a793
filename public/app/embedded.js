/**
 * This page inside a <video-room> frame; the counterpart is embed.js. Only loaded (by launch.js) if the page is embedded. The
 * browser enforces who may embed it: the CSP's frame-ancestors lists SFU_ALLOWED_ORIGINS. Messages of the parent are therefore
 * not checked further.
 */

import { grantOf } from './address.js';
import { page } from './page.js';

let port = null;

/** Takes the element's first message and its port. Returns what launch.js exports as `asked`. */
export function accept({ data, ports }) {
  [port] = ports;
  tell('ready');
  const said = (name) => String(data.videoRoom[name] ?? '').trim();
  const token = said('token');
  const { room, name } = token ? (grantOf(token) ?? { room: '', name: '' }) : { room: said('room'), name: said('name') };
  return { room, name, token, ended: null, straight: Boolean(token || (room && name)) };
}

/** Forwards the events of a Room (protocol.js) to the element, and its `leave` to the room. */
function report(room) {
  port.onmessage = ({ data }) => data?.type === 'leave' && room.leave();
  const participant = ({ peer, name }, present) => tell('participant', { peer, name, present });
  room.addEventListener('message', ({ detail: { topic, data } }) => tell('message', { topic, data }));
  room.addEventListener('welcome', ({ detail: { peer, room: title, name } }) => {
    tell('joined', { peer, room: title, name });
    for (const one of room.participants.values()) participant(one, true);
  });
  room.addEventListener('joined', ({ detail }) => participant(detail, true));
  room.addEventListener('left', ({ detail }) => participant(detail, false));
  room.addEventListener('state', ({ detail: { state, error } }) => {
    if (state !== 'ended' || room !== page.room) return; // this page went on to another room
    if (error.code === 'left') tell('left', {});
    else tell('ended', { code: error.code, message: error.message });
  });
}

function tell(type, detail = {}) {
  port.postMessage({ type, detail });
}

page.on('call', () => report(page.room));
