/** The pre-join view: who is in the room, the form and the Join button. preview.js, which shows the devices, loads meanwhile. */

import { $, face, missing, put, styled } from '../base/dom.js';
import '../ui/languages.js';
import { page } from '../app/page.js';
import { roomInfo } from '../base/room-info.js';
import { recall, remember, ticketKey, waitKey } from '../base/storage.js';
import { endText, remedyOf } from '../i18n/reasons.js';
import { list, more, t, texts } from '../i18n/texts.js';

const NAMED = 4; // participants shown by name; the others are counted
const LOOK_MS = 15_000;

const preview = import('./preview.js'); // joining does not wait for it
await more('before');

/** What the button does where a join leads elsewhere than into the room, by code; for other refusals that may end it checks again. */
const BUTTONS = {
  lobby: 'join.button.lobby',
  room_full: 'join.button.room_full',
  room_elsewhere: 'join.button.room_full',
  too_many_joins: 'join.button.room_full',
  server_draining: 'join.button.room_full',
};

let asked = { room: '', fixed: false, refusal: '' }; // `refusal`: the code that a join would be refused with now
let looking = 0;

/** Shows the view. A `room` from the link cannot be changed; a token fixes the name too. */
export function showJoin({ room, name }) {
  asked = { room, fixed: Boolean(room), refusal: '' };
  $('room-field').hidden = asked.fixed;
  $('room-input').value = room;
  $('name-input').value = name;
  $('name-input').readOnly = Boolean(page.token);
  $('join-view').classList.toggle('is-listener', page.listens);
  complain('room-input', null);
  complain('name-input', null);
  write();
  preview.then(({ showPreview }) => showPreview(), missing); // joining works without it
  showInside(null);
  clearInterval(looking);
  if (asked.fixed) looking = setInterval(() => document.hidden || look(), LOOK_MS);
  page.devices.wake(asked.fixed ? look() : null); // a link that cannot be used needs no devices
  const empty = ['room-input', 'name-input'].find((id) => !/** @type {HTMLInputElement} */ ($(id)).value);
  const typing = empty && matchMedia('(pointer: fine)').matches; // a phone's keyboard would cover the page
  $(typing ? empty : 'join-button').focus({ preventScroll: !typing });
}

function write() {
  put($('join-title'), asked.fixed ? asked.room : t('join.title'));
  writeRefusal();
  for (const id of ['room-input', 'name-input']) if ($(id).getAttribute('aria-invalid') !== 'true') put($(id.replace('input', 'hint')), hintOf(id));
}

const hintOf = (id) => t(id === 'room-input' ? 'join.room_hint' : page.token ? 'join.name_fixed' : 'join.name_hint');

function writeWill() {
  const { devices, listens } = page;
  const [microphone, camera] = ['microphone', 'camera'].map((source) => devices.status(source));
  const will = microphone === 'on' ? (camera === 'on' ? 'both' : 'microphone') : camera === 'on' ? 'camera' : 'none';
  const key = listens ? 'listen' : devices.asking.length ? 'asking' : [microphone, camera].includes('starting') ? 'starting' : will;
  put($('join-will'), isRefused() ? '\u00a0' : t(`join.will.${key}`));
}

const isRefused = () => Boolean(asked.refusal) && !(asked.refusal in BUTTONS);

/** Adapts what the button says, and the promise below it. */
function writeRefusal() {
  put($('join-button'), t(isRefused() ? 'look_again' : (BUTTONS[asked.refusal] ?? 'join.button')));
  writeWill();
}

// --- who is in the room ---

/** Shows what a join would lead to now. While the link cannot be used, the devices are off. */
async function look() {
  const of = asked;
  const answer = await roomInfo(of.room, page.token);
  if (of !== asked || $('join-view').hidden) return; // another room is asked for meanwhile, or the user has joined
  const before = isRefused();
  showAnswer(answer);
  if (isRefused() === before) return;
  if (before) page.devices.wake();
  else page.devices.rest();
  page.tell('devices');
}

function showAnswer(answer) {
  const of = asked;
  if (answer?.status === 404) clearInterval(looking); // the server does not offer this
  if (recall('sessionStorage', ticketKey(of.room))) return showInside(null); // whoever was in the call may return to it
  if (!answer || answer.refusal === null) return; // what was said last still holds
  of.refusal = answer.refusal;
  if (of.refusal && !remedyOf(of.refusal)) return page.actions.end({ code: of.refusal, room: of.room, name: $('name-input').value, invited: Boolean(page.token) });
  if (of.refusal) showReason(of.refusal);
  else showInside(answer.said);
  writeRefusal();
}

const WAITS = {
  lobby: ['join.lobby.title', 'join.lobby.text'],
  room_full: ['wait.room_full.title', 'join.full.text'],
  room_elsewhere: ['wait.elsewhere.title', 'join.elsewhere.text'],
  too_many_joins: ['wait.joins.title', 'wait.joins.text'],
  server_draining: ['wait.draining.title', 'wait.draining.text'],
};

/** What a join would lead to now, if not into the room. */
async function showReason(code) {
  await more('late').catch(missing);
  if (asked.refusal !== code) return;
  const own = WAITS[code]?.map((key) => t(key, { room: asked.room }));
  const { title, text } = own ? { title: own[0], text: own[1] } : endText({ code }, asked.room);
  $('inside').hidden = false;
  $('inside').classList.remove('is-unknown');
  $('inside-faces').replaceChildren();
  put($('inside-count'), title);
  put($('inside-names'), text);
}

function showInside(info) {
  const names = info?.open && Array.isArray(info.participants) ? info.participants.map((one) => String(one?.name ?? one)) : null;
  $('inside').hidden = !asked.fixed;
  $('inside').classList.toggle('is-unknown', !names); // keeps its space, so that nothing jumps later
  if (!names) return;
  $('inside-faces').replaceChildren(...names.slice(0, NAMED).map(face));
  put($('inside-count'), names.length ? t('join.inside', { count: names.length }) : t('join.empty'));
  const more = names.length - NAMED;
  put($('inside-names'), names.length ? list(more > 0 ? [...names.slice(0, NAMED), t('join.more', { count: more })] : names) : '');
}

// --- the form ---

const isLink = (text) => /^https?:\/\/./i.test(text);

function submit(event) {
  event.preventDefault();
  if (isRefused()) return void look();
  const room = $('room-input').value.trim();
  const name = $('name-input').value.trim();
  if (isLink(room)) return void location.assign(room); // an invitation that was pasted
  complain('name-input', name ? null : t('join.name_missing'));
  complain('room-input', room ? null : t('join.room_missing'));
  remember('sessionStorage', waitKey(room), '');
  if (room && name) page.actions.join({ room, name });
  else $(room ? 'name-input' : 'room-input').focus();
}

/** Shows an error in place of a field's hint; null restores the hint. */
function complain(id, sentence) {
  const hint = $(id.replace('input', 'hint'));
  hint.textContent = sentence ?? hintOf(id);
  hint.classList.toggle('is-wrong', sentence !== null);
  $(id).setAttribute('aria-invalid', String(sentence !== null));
}

$('join-form').addEventListener('submit', submit);
for (const id of ['room-input', 'name-input']) $(id).addEventListener('input', () => complain(id, null));
for (const source of ['microphone', 'camera']) {
  document.querySelector(`.puck[data-toggle=${source}]`).addEventListener('click', () => page.actions.toggle(source));
}
page.on('devices', writeWill);
page.on('view', ({ name }) => name !== 'join' && clearInterval(looking));
document.addEventListener('visibilitychange', () => document.hidden || !asked.fixed || $('join-view').hidden || look());
texts.addEventListener('change', write);
write();
await styled('before.css');
