/**
 * This page in the frame of a <video-room>, whose other half is embed.js; launch.js loads it there. Whose frame it may be is the
 * browser's to keep: the policy's frame-ancestors names the pages of SFU_ALLOWED_ORIGINS. So what the parent says is taken as
 * it comes.
 */

import { grantOf } from './address.js';
import { page } from './page.js';

let port = null;

/** Takes the element's first message: what it asks for, as launch.js says it. The page around it is the view before the call. */
export function accept({ data, ports }) {
  [port] = ports;
  tell('ready');
  const said = (name) => String(data.videoRoom[name] ?? '').trim();
  const token = said('token');
  const { room, name } = token ? (grantOf(token) ?? { room: '', name: '' }) : { room: said('room'), name: said('name') };
  return { room, name, token, invited: '', straight: Boolean(token || (room && name)) };
}

/** Tells the element what happens in a room (protocol.js) and lets it leave. */
function report(room) {
  port.onmessage = ({ data }) => data?.type === 'leave' && room.leave();
  const participant = ({ peer, name }, present) => tell('participant', { peer, name, present });
  room.addEventListener('welcome', ({ detail: { peer, room: title, name } }) => {
    tell('joined', { peer, room: title, name });
    for (const one of room.participants.values()) participant(one, true);
  });
  room.addEventListener('joined', ({ detail }) => participant(detail, true));
  room.addEventListener('left', ({ detail }) => participant(detail, false));
  room.addEventListener('state', ({ detail: { state, error } }) => {
    if (state !== 'ended') return;
    if (error.code === 'left') tell('left', {});
    else tell('ended', { code: error.code, message: error.message });
  });
}

function tell(type, detail = {}) {
  port.postMessage({ type, detail });
}

page.on('call', () => report(page.room));
