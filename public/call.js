/** The call: a room, what it tells the page, what the person does, and how it ends. Loaded when somebody goes in. */

import { startBar } from './bar.js';
import { $ } from './dom.js';
import { report } from './embedded.js';
import { countDown, showEnding } from './ending.js';
import { retry, showBanner, startNotices, tellDevices, waitingWords } from './notices.js';
import { startModeration } from './moderate.js';
import { page } from './page.js';
import { panels } from './panel.js';
import { Room } from './protocol.js';
import { openShortcuts, startShortcuts } from './shortcuts.js';
import { Stage } from './stage.js';
import { callKey, NAME_KEY, remember, tokenKey } from './storage.js';
import { t, texts } from './texts.js';
import { clearToasts, toast } from './toasts.js';
import { endText, troubleText } from './words.js';

const SOURCES = ['microphone', 'camera'];
const PROMPT_MS = 2_000; // how long joining waits for devices: granted ones are quick, a question may stand for ever
const FULL_S = 10; // between two tries to enter a full room
const EVENTS = [
  ...['welcome', 'joined', 'left', 'track', 'trackended', 'mute', 'paused', 'hand', 'room'], // people
  ...['state', 'bye', 'error', 'expiring', 'speakers', 'chat', 'history', 'chat_deleted', 'reaction', 'asked', 'lobby', 'waiting', 'quality'],
];
const OF_PEOPLE = EVENTS.slice(0, 9);

const { devices } = page;
let lostAt = 0;
let ticking = 0;
let awake = null; // keeps a phone's screen on
let answers = false; // whether the server serves pages although it takes no calls

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// --- joining and leaving ---

export async function enter({ room: roomName, name }) {
  const again = page.room?.room === roomName;
  const { token } = page;
  if (!token) remember('localStorage', NAME_KEY, name);
  const here = new URL(location.href);
  if (roomName) here.searchParams.set('room', roomName);
  here.searchParams.delete('token'); // it lets its holder in as somebody: not for histories, screens and copied addresses
  here.searchParams.delete('username'); // an address copied by hand must not bring a second person of this name
  history.replaceState(null, '', here);
  remember('sessionStorage', callKey(), name);
  remember('sessionStorage', tokenKey(), token);
  const room = (page.room = window.room = new Room({ url: new URL('/ws', location.href), room: roomName, name, token }));
  if (typeof RTCPeerConnection === 'undefined') return end({ code: 'no_webrtc' });
  for (const type of EVENTS) room.addEventListener(type, ({ detail }) => page.room === room && page.tell(type, detail));
  report(room);
  page.tell('call', { again });
  page.show('call');
  page.changed();
  if (devices.resting) await Promise.race([devices.wake().then(tellDevices), pause(PROMPT_MS)]);
  for (const source of SOURCES) send(source);
  if (page.room === room && room.state === 'idle') room.join();
}

/** A call is watched without touching anything; a hidden page loses the lock and asks again. */
async function stayAwake() {
  if (page.inCall && document.visibilityState === 'visible') awake = await navigator.wakeLock?.request('screen').catch(() => null);
}

function end(error) {
  const { room } = page;
  awake?.release();
  awake = null;
  clearInterval(ticking);
  ticking = 0;
  devices.rest();
  panels.close({ focus: false });
  clearToasts();
  page.stage.clear();
  remember('sessionStorage', callKey(), '');
  remember('sessionStorage', tokenKey(), '');
  page.show('end');
  if (error.code === 'room_full') {
    showEnding({ ...waitingWords({ since_s: 0, answers, inCall: false }), actions: ['now', 'stop'] }, press);
    countDown(FULL_S, () => enter(room));
  } else showEnding(endText(error, room.room), press);
}

/** Before the first welcome there is no call to show: why not, and that the page keeps trying. */
function hold(words) {
  page.show('end');
  const actions = { lobby: ['leave'], blocked: ['now', 'copy_admin', 'stop'] }[words.key] ?? ['now', 'stop'];
  showEnding({ ...words, actions }, press);
  if (words.key !== 'lobby') countDown(0);
}

// --- room → page ---

function stateChanged({ state, error }) {
  const { room } = page;
  if (state === 'ended') return end(error);
  if (state === 'waiting' && !ticking) {
    lostAt = performance.now();
    ticking = setInterval(banner, 1000);
  } else if (!error) {
    clearInterval(ticking);
    ticking = 0;
  }
  if (state === 'waiting' && error.code === 'unreachable' && room.self === null) probe();
  banner();
  if (state === 'joined') page.changed();
}

async function probe() {
  const response = await fetch('/health', { signal: AbortSignal.timeout(3000) }).catch(() => null);
  answers = Boolean(response?.ok);
  banner();
}

function banner() {
  const { room } = page;
  if (!page.inCall) return;
  const blocked = ['ice_timeout', 'dtls_failed'].includes(room.error?.code); // joined again, but perhaps as deaf as before
  const away = room.error && (room.state !== 'joined' || blocked);
  const since_s = Math.round((performance.now() - lostAt) / 1000);
  const trouble = room.state === 'joined' && !room.error ? room.trouble : null;
  const words = away ? waitingWords({ since_s, answers, inCall: room.self !== null }) : trouble && troubleText(trouble);
  if (words && room.self === null) hold(words);
  else showBanner(words, room.state !== 'joined' && room.self !== null);
}

// --- devices → room ---

function send(source) {
  const { room } = page;
  const track = devices.track(source);
  const ofScreen = source.startsWith('screen');
  if (ofScreen && !track) room.unpublish(source);
  else room.publish(source, track, ofScreen ? new MediaStream([track]) : devices.stream);
  if (!ofScreen) room.mute(source, devices.status(source) !== 'on');
}

function deviceChanged({ detail: { source } }) {
  if (!page.inCall || source === 'speaker') return;
  send(source);
  if (source === 'screen') send('screen-audio');
  page.changed();
}

// --- person → everything ---

async function copyLink() {
  try {
    await navigator.clipboard.writeText(page.link);
    toast('copy', t('link.copied'), { icon: 'check' });
  } catch {
    toast('copy', t('link.show', { link: page.link }));
  }
}

/** Copies, and says so in the button, since there are no toasts outside the call. */
async function copyFromEnding(text, action) {
  try {
    await navigator.clipboard.writeText(text);
    document.querySelector(`[data-act=${action}] span`).textContent = t('act.copied');
  } catch {
    $('end-tech').hidden = false;
    $('end-tech').textContent = text;
  }
}

/** What can be pressed where there is no call. */
function press(name) {
  const { room } = page;
  if (name === 'another' || name === 'another_link' || name === 'stop') {
    if (page.inCall) room.leave();
    page.token = '';
    page.actions.preview({ room: '', name: room.name });
  } else if (name === 'change') page.actions.preview({ room: room.room, name: room.name });
  else if (name === 'leave') room.leave();
  else if (name === 'now' && page.inCall) room.join();
  else if (name === 'request') copyFromEnding(t('act.request_text', { room: room.room, reason: t(`end.${room.error.code}.title`) }), name);
  else if (name === 'copy_admin') copyFromEnding(waitingWords({ since_s: 0, answers, inCall: false }).tech, name);
  else if (room.error?.code === 'no_webrtc') location.reload();
  else enter(room);
}

Object.assign(page.actions, {
  share: () => (devices.track('screen') ? devices.unshare() : devices.share()),
  hand: () => page.room.send('hand', { raised: !page.room.hand }),
  react: (reaction) => page.room.send('reaction', { reaction }),
  view: () => page.stage.toggleView(),
  leave: () => page.room.leave(),
  copyLink,
  fullScreen: () => (document.fullscreenElement ? document.exitFullscreen() : document.documentElement.requestFullscreen()).catch(() => {}),
  pip: () => page.stage.pip(),
  shortcuts: openShortcuts,
  retry,
});

page.stage = new Stage();
page.on('state', stateChanged);
page.on('welcome', () => {
  page.show('call');
  stayAwake();
});
page.on('waiting', ({ room }) => hold({ key: 'lobby', title: t('wait.lobby.title', { room }), text: t('wait.lobby.text') }));
for (const type of OF_PEOPLE) page.on(type, () => page.changed());
page.on('people', () => {
  if (page.room.state === 'joined' || !page.room.self) page.stage.sync(); // else what was last seen stays, greyed
});
devices.addEventListener('change', deviceChanged);
$('copy-link').addEventListener('click', copyLink);
$('retry-button').addEventListener('click', () => page.room.join());
addEventListener('online', () => page.inCall && page.room.join());
addEventListener('offline', banner);
document.addEventListener('visibilitychange', () => {
  if (document.visibilityState !== 'visible' || !page.inCall) return;
  page.room.join();
  stayAwake();
});
texts.addEventListener('change', () => page.changed());
startBar();
startNotices();
startShortcuts();
startModeration();
panels.add('people', { key: $('people-button'), title: 'people.title', make: async () => (await import('./people.js')).panel() });
panels.add('stats', { title: 'stats.title', make: async () => (await import('./stats.js')).panel() });
page.more.push(() => [{ icon: 'qr', label: t('more.qr'), then: async () => (await import('./invite.js')).openInvite() }]);
panels.add('chat', { key: $('chat-button'), title: 'chat.title', make: async () => (await import('./chat.js')).panel() });
page.on('call', () => import('./chat.js')); // it counts what is unread from the start
