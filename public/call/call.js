/** The call: connects the Room, the local devices and the user's actions. Loaded when the user joins. */

import { keep } from '../app/address.js';
import { startBar } from './bar.js';
import { $, missing, newStream } from '../base/dom.js';
import { page } from '../app/page.js';
import { Room } from '../protocol.js';
import { hold, startShortcuts } from './shortcuts.js';
import { Stage } from '../stage/stage.js';
import { SERVER } from '../base/server.js';
import { callKey, NAME_KEY, recall, remember, ticketKey, waitKey } from '../base/storage.js';
import { more, texts } from '../i18n/texts.js';
import { isProblem } from '../i18n/words.js';

const SOURCES = ['microphone', 'camera'];
const PROMPT_MS = 2_000; // how long joining waits for devices: granted ones start fast, a permission prompt may stay open for ever
const PICTURE_MS = 10_000; // how long deferred.js waits for the first remote video
const TOLD = ['state', 'speakers', 'quality']; // current state; all other events are also queued for modules that load later
const OF_PEOPLE = ['welcome', 'joined', 'left', 'track', 'trackended', 'mute', 'paused', 'connection', 'hand', 'room', 'changed', 'permissions', 'spotlight'];
const NEWS = [...OF_PEOPLE, 'bye', 'error', 'chat', 'history', 'chat_deleted', 'reaction', 'asked', 'lobby', 'waiting', 'draining', 'message', 'move'];
const OPENED = ['deviceMenu', 'invite', 'moreMenu', 'panel', 'reactions', 'settings', 'shortcuts', 'tileMenu'];
const DONE = ['copyLink', 'explain', 'retry', 'soundHeld', 'tellDevices'];

const { devices } = page;
let waiting = 0; // timer that loads deferred.js without a first video
let rest = null; // promise of deferred.js

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// --- joining and leaving ---

export async function enter({ room: roomName, name, move = false }) {
  const ticket = recall('sessionStorage', ticketKey(roomName));
  const tabs = ticket && (await import('./tabs.js').catch(missing));
  if (tabs && !(await tabs.goesOnHere(ticket, { room: roomName, name, move }))) return;
  const again = page.room?.room === roomName;
  const { token } = page;
  if (!token) remember('localStorage', NAME_KEY, name);
  keep({ room: roomName, token, name, linked: !token });
  const room = (page.room = window.room = new Room({ url: new URL('ws', SERVER), room: roomName, name, token, ticket }));
  for (const type of TOLD) room.addEventListener(type, ({ detail }) => page.room === room && page.tell(type, detail));
  for (const type of NEWS) room.addEventListener(type, ({ detail }) => page.room === room && page.pass(type, detail));
  page.pass('call', { again });
  const wait = recall('sessionStorage', waitKey(roomName));
  if (wait) later().then((parts) => page.room === room && parts.waitAgain(wait)); // there may be no call yet
  else page.show('call');
  if (window.parent === window && !history.state?.call) history.pushState({ call: true }, ''); // in a frame, Back is the embedding page's
  page.changed();
  if (devices.resting) await Promise.race([devices.wake().then(tellProblems), pause(PROMPT_MS)]);
  if (devices.asking.length) later(); // it tells what the browser asks
  for (const source of SOURCES) send(source);
  if (page.room === room && room.state === 'idle') room.join();
}

const tellProblems = () => SOURCES.some((source) => isProblem(devices.status(source))) && page.actions.tellDevices();

function stateChanged({ state, error }) {
  if (state === 'ended') leave();
  else page.changed();
  if (error || page.room.trouble) later();
}

/** The server has told whether the room can be joined by its name, and the user's permissions. */
function welcomed({ room, name }) {
  keep({ room, token: page.token, name, linked: page.room.settings.public });
  remember('sessionStorage', ticketKey(room), page.room.ticket);
  remember('sessionStorage', waitKey(room), '');
  if (page.listens) devices.forbid();
  page.show('call');
}

/** What the user may do has changed: devices are released, or may be turned on again by the user. */
function permitted() {
  keep({ room: page.room.room, token: page.token, name: page.room.name, linked: page.room.settings.public });
  if (page.listens) devices.forbid();
  else devices.permitted = true;
  page.tell('devices');
}

/** The company sends the user to another room: this page goes there by itself, and leaves this one once it has asked to join there. */
async function goTo({ room: roomName, token }) {
  const before = page.room;
  page.token = token;
  await enter({ room: roomName, name: before.name });
  before.leave();
}

function leave() {
  clearTimeout(waiting);
  devices.rest();
  page.stage.clear();
  remember('sessionStorage', callKey(), ''); // a reload does not rejoin, unless the ending, told by interruptions.js, is one to try again
  remember('sessionStorage', ticketKey(page.room.room), page.room.ticket);
}

// --- deferred modules ---

/** Resolves to deferred.js. */
function later() {
  return (rest ??= more('before', 'late').then(() => import('./deferred.js')).catch(() => (missing(), new Promise(() => {})))); // texts first: its modules use them on load
}

/** Loads deferred.js once another person's video shows, or right away if nobody sends video. */
function whenItStands() {
  if (rest || !page.room.connected) return;
  const sends = [...page.room.participants.values()].some(({ tracks }) => tracks.get('camera')?.muted === false);
  if (!sends || document.querySelector('.tile.has-picture:not(.is-self)')) later();
  else waiting ||= setTimeout(later, PICTURE_MS);
}

// --- from devices to the room ---

function send(source) {
  const { room } = page;
  const track = devices.track(source);
  const ofScreen = source.startsWith('screen');
  if (ofScreen && !track) room.unpublish(source);
  else room.publish(source, track, ofScreen ? newStream([track]) : devices.stream);
  if (!ofScreen) room.mute(source, devices.status(source) !== 'on');
}

function deviceChanged({ detail: { source } }) {
  if (!page.inCall || source === 'speaker') return;
  send(source);
  if (source === 'screen') send('screen-audio');
  page.changed();
}

// --- the user's actions ---

Object.assign(page.actions, {
  share: () => (devices.track('screen') ? devices.unshare() : devices.share()),
  hand: () => page.room.send('hand', { raised: !page.room.hand }),
  react: (reaction) => page.room.send('reaction', { reaction }),
  view: () => page.stage.toggleView(),
  leave: () => page.room.leave(),
  fullScreen: async () => document.fullscreenEnabled && (document.fullscreenElement ? document.exitFullscreen() : document.documentElement.requestFullscreen()).catch(() => {}),
  later,
});
for (const name of DONE) page.actions[name] = async (...given) => (await later())[name](...given);
for (const name of OPENED) page.actions[name] = (...given) => hold(later().then((parts) => parts[name](...given)));

page.stage = new Stage();
page.on('state', stateChanged);
page.on('welcome', welcomed);
page.on('waiting', later);
page.on('permissions', permitted);
page.addEventListener('move', (/** @type {CustomEvent} */ { detail }) => goTo(detail));
for (const type of OF_PEOPLE) page.on(type, () => page.changed());
page.on('people', () => {
  if (page.room.state === 'joined' || !page.room.self) page.stage.sync(); // otherwise the last state stays, greyed out
  whenItStands();
});
devices.addEventListener('change', deviceChanged);
$('copy-link').addEventListener('click', page.actions.copyLink);
addEventListener('popstate', async () => history.state?.call || (await later()).back());
texts.addEventListener('change', () => page.changed());
startBar();
startShortcuts();
