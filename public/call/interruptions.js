/** Interruptions: the banner over a call that is being repaired, and the view shown instead of a call. */

import { $, put, within } from '../base/dom.js';
import { keepEnd } from '../app/address.js';
import { copy, countDown, press as pressEnding, showEnd, showEnding } from './ending.js';
import { page } from '../app/page.js';
import { hasMoved } from './tabs.js';
import { SERVER } from '../base/server.js';
import { remember, waitKey } from '../base/storage.js';
import { blockedText, troubleText, waitingText } from '../i18n/reasons.js';
import { t } from '../i18n/texts.js';

const FULL_S = 10; // between two attempts to join a full room

const KEPT = ['lobby', 'room_full', 'server_full', 'draining', 'elsewhere']; // waits that probably go on after a reload

const COUNTED_S = 7; // a pause that is long enough for a countdown

let counted = { at: 0, all_s: 0 }; // the Room.retryAt that is counted down to, and the whole pause before it
let lostAt = performance.now();
let ticking = 0;
let knocked = null; // the Room that was last in a lobby
let answers = false; // whether the server answers HTTP requests although it accepts no calls

const words = (facts) => waitingText(page.room.error, { ...facts, unreached: page.room.unreached, room: page.room.room });

function stateChanged({ state, error }) {
  const { room } = page;
  if (state === 'ended') return end(error);
  const lost = state === 'waiting' || room.trouble;
  if (lost && !ticking) {
    lostAt = performance.now();
    ticking = setInterval(banner, 1000);
  } else if (!lost && !error) rest();
  if (state === 'waiting' && error.code === 'unreachable' && room.self === null) probe();
  banner();
}

function rest() {
  clearInterval(ticking);
  ticking = 0;
}

async function probe() {
  const response = await fetch(new URL('health', SERVER), { signal: within(3_000) }).catch(() => null);
  answers = Boolean(response?.ok);
  banner();
}

function banner() {
  const { room } = page;
  if (!page.inCall) return;
  const away = room.error; // kept after rejoining until media flows: until then nothing may be heard yet
  const since_s = Math.max(1, Math.round((performance.now() - lostAt) / 1000));
  const trouble = room.state === 'joined' ? room.trouble : null;
  const missing = () => (away ? words({ since_s, answers, inCall: room.self !== null }) : trouble && troubleText(trouble, since_s));
  const why = trouble === 'unreached' ? blockedText(room.unreached) : missing();
  if (why && room.self === null) return hold(why);
  $('banner').hidden = !why;
  $('stage').classList.toggle('is-frozen', room.state !== 'joined' && room.self !== null);
  if (!why) return;
  put($('banner-title'), why.title);
  put($('banner-text'), [why.text, why.tech].filter(Boolean).join(' '));
}

/** Before the first `welcome` there is no call to show: shows the reason instead, while the page keeps trying. */
function hold(why) {
  keepWait(why);
  page.show('end');
  const actions = { lobby: ['leave'], blocked: ['now', 'copy_admin', 'stop'] }[why.key] ?? ['now', 'stop'];
  showEnding({ ...why, actions }, press);
  if (why.key !== 'lobby') countToNextTry(page.room);
}

/** Counts down to the next attempt, if the pause is a long one; the server may have told when to try again. */
function countToNextTry({ state, retryAt }) {
  const left_s = state === 'waiting' ? (retryAt - performance.now()) / 1000 : 0;
  if (counted.at !== retryAt) counted = { at: retryAt, all_s: left_s };
  countDown(counted.all_s < COUNTED_S ? 0 : left_s, undefined, counted.all_s);
}

const keepWait = (why) => remember('sessionStorage', waitKey(page.room.room), KEPT.includes(why.key) ? JSON.stringify(why) : '');

/** Shows what this tab waited for before a reload, until the server tells more. */
export function waitAgain(kept) {
  if (page.inCall && page.room.self === null && knocked !== page.room) hold(JSON.parse(kept));
}

function end(error) {
  const { room } = page;
  rest();
  if (error.code === 'room_full') waitForPlace(room);
  else showEnd(endingOf(room));
}

function waitForPlace(room) {
  page.show('end');
  keepEnd({ name: room.name, token: page.token }); // a reload waits as well
  const why = words({ since_s: 0, answers, inCall: false });
  keepWait(why);
  showEnding({ ...why, actions: ['now', 'stop'] }, press);
  countDown(FULL_S, () => page.actions.join(room));
}

function endingOf(room) {
  const { code: said } = room.error;
  const stopped = knocked === room ? 'lobby_left' : 'stopped';
  const left = hasMoved(room) ? 'moved' : room.self === null ? stopped : said;
  const code = said === 'left' ? left : said;
  return { code, room: room.room, name: room.name, invited: Boolean(page.token), own: code === 'call_ended' && page.closed === room };
}

/** Handles the buttons of the view while the page keeps trying. */
function press(action) {
  const { room } = page;
  if (action === 'copy_admin') return copy(words({ since_s: 0, answers, inCall: false }).tech, action);
  if (action === 'now' && page.inCall) return room.join();
  if (page.inCall) room.leave();
  if (action !== 'leave') pressEnding(action, endingOf(room));
}

page.on('state', stateChanged);
page.follow('waiting', ({ room, attended }) => {
  knocked = page.room;
  if (page.room.state === 'joining') hold({ key: 'lobby', title: t('wait.lobby.title', { room }), text: t(attended ? 'wait.lobby.text' : 'wait.lobby.nobody') });
});
addEventListener('offline', banner);
$('retry-button').addEventListener('click', () => page.room.join());
const tryNow = () => page.inCall && page.room.join();
addEventListener('online', tryNow);
navigator.connection?.addEventListener?.('change', tryNow);
document.addEventListener('visibilitychange', () => document.visibilityState === 'visible' && !page.room?.stalled && tryNow());
if (page.room) stateChanged(page.room);
