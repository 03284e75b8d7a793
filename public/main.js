/** Wires the room, the devices and the page together. */

import { Room } from './protocol.js';
import { Devices } from './media.js';
import { View } from './ui.js';
import { deviceProblems, endText, troubleText, waitingText } from './words.js';

const SOURCES = ['microphone', 'camera'];
const PROMPT_MS = 2_000; // how long joining waits for devices: granted ones are quick, a question may stand for ever
const QUIET_ERRORS = new Set(['bad_candidate', 'too_many_candidates', 'unexpected_answer', 'bad_source']);
const NAME_KEY = 'sfu.name';
const reloadKey = () => `sfu.call${location.search}`; // the name in this tab's call: loading it again goes straight back

const tokenKey = () => `sfu.token${location.search}`;

const view = new View();
const devices = new Devices();
let room = null;
let token = ''; // what the link said, kept out of the address bar
let lostAt = 0;
let ticking = 0;
let answers = false; // whether the server serves pages although it takes no calls
let idle = [...SOURCES]; // devices to turn on with the next preview or call

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function startDevices() {
  const sources = idle;
  idle = [];
  return devices.start(sources);
}

/** The link to share: the room and nothing about who shares it. */
function shareLink() {
  const link = new URL(location.pathname, location.href);
  link.searchParams.set('room', room.room);
  return link.href;
}

// Browsers may refuse storage; the page only forgets a convenience then.
function recall(storage, key) {
  try {
    return window[storage].getItem(key) ?? '';
  } catch {
    return '';
  }
}

function remember(storage, key, value) {
  try {
    window[storage].setItem(key, value);
  } catch {
    // see recall
  }
}

// --- joining and leaving ---

/** Room and name in a token; whether they are true, the server knows. */
function spoken(text) {
  try {
    const bytes = Uint8Array.from(atob(text.split('.')[1].replace(/-/g, '+').replace(/_/g, '/')), (letter) => letter.charCodeAt(0));
    const { room_id: roomName, user_name: name } = JSON.parse(new TextDecoder().decode(bytes));
    return { room: String(roomName), name: String(name) };
  } catch {
    return { room: 'the room', name: '' };
  }
}

async function enter({ room: roomName, name }) {
  if (typeof RTCPeerConnection === 'undefined') {
    view.showEnd(endText({ code: 'no_webrtc' }, roomName));
    return;
  }
  if (!token) remember('localStorage', NAME_KEY, name);
  const here = new URL(location.href);
  here.searchParams.set('room', roomName);
  here.searchParams.delete('token'); // it lets its holder in as somebody: not for histories, screens and copied addresses
  here.searchParams.delete('username'); // an address copied by hand must not bring a second person of this name
  history.replaceState(null, '', here);
  remember('sessionStorage', reloadKey(), name);
  remember('sessionStorage', tokenKey(), token);
  if (room?.room !== roomName) view.clearChat();
  const current = (room = window.room = new Room({ url: new URL('/ws', location.href), room: roomName, name, token }));
  follow(current);
  view.showCall(roomName);
  view.setDevices(devices);
  for (const source of SOURCES) send(source);
  show();
  if (idle.length) await Promise.race([startDevices().then(tellDevices), pause(PROMPT_MS)]);
  if (room === current && current.state === 'idle') current.join();
}

function preview(values) {
  view.showJoin(values);
  startDevices();
  view.setDevices(devices);
}

// --- room → page ---

function follow(current) {
  const on = (type, then) =>
    current.addEventListener(type, ({ detail }) => {
      if (room === current) then(detail);
    });
  on('state', stateChanged);
  on('welcome', ({ room: name }) => view.showCall(name));
  on('joined', ({ name }) => tell(`${name} joined`));
  on('left', ({ name }) => tell(`${name} left`));
  for (const type of ['track', 'trackended', 'mute', 'paused']) on(type, show);
  on('speakers', (now) => view.tiles.speak(now));
  on('chat', (line) => view.addChat(line, line.peer === room.self));
  on('expiring', ({ seconds }) => view.notice('expiring', `Your link ends in ${seconds} seconds, and your call with it.`));
  on('error', ({ code, message }) => QUIET_ERRORS.has(code) || view.notice('error', message));
}

function tell(text) {
  view.say(text);
  view.addChatRule(text);
  show();
}

function stateChanged({ state, error }) {
  if (state === 'ended') {
    clearInterval(ticking);
    ticking = 0;
    idle = SOURCES.filter((source) => devices.status(source) === 'on');
    devices.close();
    remember('sessionStorage', reloadKey(), '');
    remember('sessionStorage', tokenKey(), '');
    view.showEnd(endText(error, room.room));
    return;
  }
  if (state === 'waiting' && !ticking) {
    lostAt = performance.now();
    ticking = setInterval(banner, 1000);
  } else if (!error) {
    clearInterval(ticking);
    ticking = 0;
  }
  if (state === 'waiting' && error.code === 'unreachable' && room.self === null) probe();
  view.tiles.speak(room.speakers);
  banner();
  if (state === 'joined') show();
}

async function probe() {
  const response = await fetch('/health', { signal: AbortSignal.timeout(3000) }).catch(() => null);
  answers = Boolean(response?.ok);
  banner();
}

function banner() {
  const blocked = ['ice_timeout', 'dtls_failed'].includes(room.error?.code); // joined again, but perhaps as deaf as before
  const away = room.error && (room.state !== 'joined' || blocked);
  const since_s = Math.round((performance.now() - lostAt) / 1000);
  const facts = { since_s, answers, host: location.hostname, port: room.mediaPort, inCall: room.self !== null };
  const trouble = room.state === 'joined' && !room.error ? room.trouble : null;
  const words = away ? waitingText(room.error, facts) : trouble && troubleText(trouble);
  view.setBanner(words, room.state !== 'joined' && room.self !== null);
}

function show() {
  if (room.state !== 'joined' && room.self) return; // what was last seen stays, greyed
  const microphone = devices.status('microphone');
  view.tiles.sync(room, {
    name: room.name,
    picture: devices.track('camera'),
    screen: devices.track('screen'),
    muted: microphone !== 'on',
  });
  view.setPeople(room.self === null ? 0 : room.participants.size + 1, shareLink());
}

// --- devices → room and page ---

function send(source) {
  const track = devices.track(source);
  if (source === 'screen' && !track) room.unpublish('screen');
  else {
    room.publish(source, track, devices.stream);
    room.mute(source, devices.status(source) !== 'on');
  }
}

function tellDevices() {
  if (!inCall()) return;
  for (const { text, action, sources, insecure } of deviceProblems(devices.status('microphone'), devices.status('camera'))) {
    view.notice('devices', text, insecure ? view.secureLink() : action && { label: action, then: () => retry(sources) });
  }
}

async function retry(sources) {
  await devices.start(sources);
  tellDevices();
}

const inCall = () => room !== null && room.state !== 'ended';

devices.addEventListener('change', ({ detail: { source } }) => {
  view.setDevices(devices);
  if (!inCall()) return;
  send(source);
  show();
});
devices.addEventListener('lost', ({ detail: { source } }) => {
  if (inCall()) view.notice('lost', `Your ${source} was unplugged or taken away.`, { label: 'Look again', then: () => retry([source]) });
});
devices.addEventListener('found', ({ detail: { source } }) => {
  if (inCall()) view.notice('found', `A ${source} is there now.`, { label: 'Turn it on', then: () => retry([source]) });
});

// --- person → everything ---

const actions = {
  join: enter,
  toggle: ({ source }) => {
    const trouble = !['on', 'off', 'starting'].includes(devices.status(source));
    if (trouble) retry([source]);
    else devices.toggle(source);
  },
  'retry-devices': ({ sources }) => retry(sources),
  share: () => (devices.track('screen') ? devices.unshare() : devices.share()),
  leave: () => room.leave(),
  retry: () => room.join(),
  chat: ({ text }) => {
    if (room.chat(text)) view.chatSent();
    else if (room.state === 'joined' && !room.trouble) view.notice('chat', 'This message is too long. Send it in two parts.');
    else view.notice('chat', 'Not sent: you are not connected. Your text is kept; send it again in a moment.');
  },
  copy: async () => {
    const link = shareLink();
    try {
      await navigator.clipboard.writeText(link);
      view.notice('copy', 'Link copied.');
    } catch {
      view.notice('copy', `Your browser doesn’t let pages copy. This is the link: ${link}`);
    }
  },
  rejoin: () => {
    if (room?.error?.code === 'bad_name') preview({ room: room.room, name: room.name });
    else if (room) enter({ room: room.room, name: room.name });
    else location.reload();
  },
  another: () => {
    token = '';
    preview({ room: '', name: room?.name ?? '' });
  },
  refresh: show,
};
for (const [type, action] of Object.entries(actions)) view.addEventListener(type, ({ detail }) => action(detail));

window.addEventListener('online', () => inCall() && room.join());
window.addEventListener('offline', () => inCall() && banner());
document.addEventListener('visibilitychange', () => document.visibilityState === 'visible' && inCall() && room.join());

// --- start ---

const query = new URLSearchParams(location.search);
const asked = { room: query.get('room')?.trim() ?? '', name: query.get('username')?.trim() ?? '' };
const reloaded = performance.getEntriesByType('navigation')[0]?.type === 'reload';
token = query.get('token') ?? (reloaded ? recall('sessionStorage', tokenKey()) : '');
const nameBefore = reloaded && recall('sessionStorage', reloadKey());
if (token) enter(spoken(token));
else if (asked.room && (asked.name || nameBefore)) enter({ room: asked.room, name: asked.name || nameBefore });
else preview({ room: asked.room, name: asked.name || recall('localStorage', NAME_KEY) });
