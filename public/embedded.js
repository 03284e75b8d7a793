/**
 * This page in the frame of a <video-room>, whose other half is embed.js. Whose frame it may be is the browser's to keep:
 * the policy's frame-ancestors names the pages of SFU_ALLOWED_ORIGINS. So what the parent says is taken as it comes.
 */

export const embedded = window.parent !== window;

let port = null;

/** Resolves to the { room, token, name } of the element. It comes right after `load`, so this listens from the start. */
export const invitation = new Promise((resolve) => {
  if (embedded) addEventListener('message', receive);

  function receive({ source, data, ports }) {
    if (source !== window.parent || !data?.videoRoom || !ports.length) return;
    removeEventListener('message', receive);
    [port] = ports;
    tell('ready');
    const { room = '', token = '', name = '' } = data.videoRoom;
    resolve({ room: String(room).trim(), token: String(token), name: String(name).trim() });
  }
});

/** Tells the element what happens in a room (protocol.js) and lets it leave. */
export function report(room) {
  if (!port) return;
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
  port?.postMessage({ type, detail });
}
