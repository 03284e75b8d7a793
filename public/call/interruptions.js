/** Interruptions: the banner over a call that is being repaired, and the view shown instead of a call. */

import { $, put, within } from '../base/dom.js';
import { copyText } from '../ui/here.js';
import { countDown, showEnding } from './ending.js';
import { page } from '../app/page.js';
import { SERVER } from '../base/server.js';
import { blockedText, endText, troubleText, waitingText } from '../i18n/reasons.js';
import { t } from '../i18n/texts.js';

const FULL_S = 10; // between two attempts to join a full room

let lostAt = performance.now();
let ticking = 0;
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
  const since_s = Math.round((performance.now() - lostAt) / 1000);
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
  page.show('end');
  const actions = { lobby: ['leave'], blocked: ['now', 'copy_admin', 'stop'] }[why.key] ?? ['now', 'stop'];
  showEnding({ ...why, actions }, press);
  if (why.key !== 'lobby') countDown(0);
}

function end(error) {
  const { room } = page;
  rest();
  page.show('end');
  if (error.code === 'room_full') {
    showEnding({ ...words({ since_s: 0, answers, inCall: false }), actions: ['now', 'stop'] }, press);
    countDown(FULL_S, () => page.actions.join(room));
  } else showEnding(endText(error, room.room), press);
}

/** Handles the buttons of the view shown without a call. */
function press(name) {
  const { room } = page;
  if (name === 'another' || name === 'another_link' || name === 'stop') {
    if (page.inCall) room.leave();
    page.token = '';
    page.actions.preview({ room: '', name: room.name });
  } else if (name === 'change') page.actions.preview({ room: room.room, name: room.name });
  else if (name === 'leave') room.leave();
  else if (name === 'now' && page.inCall) room.join();
  else if (name === 'request') copy(t('act.request_text', { room: room.room, reason: t(`end.${room.error.code}.title`) }), name);
  else if (name === 'copy_admin') copy(words({ since_s: 0, answers, inCall: false }).tech, name);
  else if (room.error?.code === 'no_webrtc') location.reload();
  else page.actions.join(room);
}

/** Copies a text and confirms it in the button, since toasts exist only in the call. */
async function copy(text, action) {
  if (await copyText(text)) document.querySelector(`[data-act=${action}] span`).textContent = t('act.copied');
  else Object.assign($('end-tech'), { hidden: false, textContent: text });
}

page.on('state', stateChanged);
page.follow('waiting', ({ room, attended }) => {
  if (page.room.state === 'joining') hold({ key: 'lobby', title: t('wait.lobby.title', { room }), text: t(attended ? 'wait.lobby.text' : 'wait.lobby.nobody') });
});
addEventListener('offline', banner);
if (page.room) stateChanged(page.room);
