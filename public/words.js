/** What the page says when something is wrong: what happened, then what to do. No page elements. */

const BOTH = 'camera and microphone';

/** One device problem in words: { text, action }, the action being the label of a button that tries again. */
function deviceText(problem, what) {
  const its = what === BOTH ? 'them' : 'it';
  switch (problem) {
    case 'insecure':
      return { text: 'This page isn’t secure. Browsers share a camera or microphone only with https pages and with localhost. You can still watch, listen and write.' };
    case 'none':
      return { text: `No ${what === BOTH ? 'camera or microphone' : what} found. ${ALTERNATIVE[what]}`, action: 'Look again' };
    case 'refused':
      return { text: `Your browser is blocking the ${what}. Choose Allow at the icon in the address bar, then try again. ${ALTERNATIVE[what]}`, action: 'Try again' };
    case 'busy':
      return { text: `The ${what} can’t be started: another program may be using ${its}. Close it there, then try again.`, action: 'Try again' };
    default:
      return { text: `This browser can’t use the ${what}. Another browser, or a newer version, can. ${ALTERNATIVE[what]}` };
  }
}

const ALTERNATIVE = {
  microphone: 'You can still watch, listen and write.',
  camera: 'Your voice is enough to join.',
  [BOTH]: 'You can still watch, listen and write.',
};

/** Problems of microphone and camera together: a list of { text, action, sources, insecure }, empty when all is well. */
export function deviceProblems(microphone, camera) {
  const isProblem = (status) => !['on', 'off', 'starting'].includes(status);
  if (microphone === camera && isProblem(camera)) {
    return [{ ...deviceText(camera, BOTH), sources: ['microphone', 'camera'], insecure: camera === 'insecure' }];
  }
  const list = [];
  if (isProblem(camera)) list.push({ ...deviceText(camera, 'camera'), sources: ['camera'] });
  if (isProblem(microphone)) list.push({ ...deviceText(microphone, 'microphone'), sources: ['microphone'] });
  return list;
}

/** Why somebody's video does not come, in the words of the tile. */
export function pausedText(reason) {
  return reason === 'not_speaking' ? 'Video paused: not speaking' : 'Video paused';
}

/** What a tile shows, for those who cannot see it. */
export function tileText({ label, muted, picture, paused, speaking, dominant }) {
  const voice = (dominant && 'main speaker') || (speaking && 'speaking');
  return [label, muted && 'muted', voice, !picture && (paused?.toLowerCase() ?? 'no picture')].filter(Boolean).join(', ');
}

/** Why the call is not on, while the page keeps trying: [title, text]. `since_s` is how long, `answers` whether pages load. */
export function waitingText(error, { since_s, answers, host, port, inCall }) {
  if (navigator.onLine === false) return ['This device is offline', 'You go back in by itself when it has a network again.'];
  switch (error.code) {
    case 'server_stopping':
      return ['The server is restarting', 'You go back in by itself, usually within a minute.'];
    case 'media_restarted':
    case 'media_unavailable':
      return ['Sound and video are restarting', 'You go back in by itself, usually within a few seconds.'];
    case 'database_unavailable':
      return ['Nobody can be let in right now', 'Calls that are on go on. You go in by itself, usually within a minute.'];
    case 'room_full':
      return ['The room is full', 'Keep this page open: you go in when someone leaves.'];
    case 'server_full':
      return ['The server is full', 'Keep this page open: you go in when there is room again.'];
    case 'ice_timeout':
    case 'dtls_failed':
      return [
        'This network blocks video and sound',
        'A firewall between you and the server stops the call. Another network, such as a phone hotspot, usually fixes it at once. ' +
          `For the network’s administrator: allow UDP ${port ? `port ${port} ` : ''}to ${host}.`,
      ];
  }
  if (!inCall && answers) {
    return ['The server takes no call from this page', 'For its owner: allow this address with SFU_ALLOWED_ORIGINS, and let a proxy in front pass WebSockets and the Host header.'];
  }
  if (!inCall) return ['The server can’t be reached', 'The page keeps trying. Check the address and your network.'];
  return ['Reconnecting', `The connection dropped ${since_s} s ago. Nobody hears you until it is back.`];
}

/** What is being repaired while the call goes on: [title, text]. */
export function troubleText(trouble) {
  if (trouble === 'media') return ['Sound and video are stuck', 'They come back by themselves, usually within a few seconds.'];
  return ['Reconnecting', 'You hear and see each other. Chat and what you switch reach the others in a moment.'];
}

/** Why the call is over: { title, text, again }, `again` being the label of the button that joins again. */
export function endText(error, room) {
  switch (error.code) {
    case 'left':
      return { title: `You left ${room}`, text: 'Your camera and microphone are off.', again: 'Rejoin' };
    case 'room_full':
      return { title: 'The room is full', text: `All seats in ${room} are taken. Try again when someone has left.`, again: 'Try again' };
    case 'bad_name':
      return { title: 'This name can’t be used', text: error.message, again: 'Change it' };
    case 'origin_not_allowed':
      return { title: 'This page may not use the server', text: 'The server’s owner has to allow this address. Ask for a link on the server’s own address.', again: 'Try again' };
    case 'no_webrtc':
      return { title: 'This browser can’t hold calls', text: 'It has no WebRTC, or an extension turned it off. Open the page in another browser.', again: 'Try again' };
    case 'token_expired':
      return { title: 'Your time in this room is over', text: 'The link was good until now. Ask whoever sent it for a new one.', again: 'Try again' };
    case 'token_revoked':
      return { title: 'Your link was withdrawn', text: 'Ask whoever sent it for a new one.', again: 'Try again' };
    case 'token_used':
      return { title: 'This link has been used', text: 'It was good for one visit. Ask whoever sent it for a new one.', again: 'Try again' };
    case 'token_required':
      return { title: 'This room needs an invitation', text: 'Ask whoever holds the meeting for a link.', again: 'Try again' };
    case 'token_not_yet_valid':
      return { title: 'It is too early', text: error.message, again: 'Try again' };
    case 'room_deleted':
      return { title: 'The meeting was ended', text: 'The room was closed for everybody.', again: 'Try again' };
    case 'company_disabled':
      return { title: 'This room is closed', text: 'Whoever holds the meeting can find out why.', again: 'Try again' };
    default:
      if (error.code.startsWith('token_')) {
        return { title: 'This link doesn’t work', text: `${error.message} Ask whoever sent it for a new one.`, again: 'Try again' };
      }
      return { title: `You are out of ${room}`, text: error.message, again: 'Rejoin' };
  }
}
