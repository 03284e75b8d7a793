/** Before the call: how one looks and sounds, with which devices, who is inside already, one field and one button. */

import { secureLink, showDevice } from './devicekeys.js';
import { $, button, element, face, put, styled } from './dom.js';
import './languages.js';
import { page } from './page.js';
import { levelBar, picker } from './pickers.js';
import { deviceProblems } from './reasons.js';
import { choices } from './storage.js';
import { list, t, texts } from './texts.js';
import { isProblem } from './words.js';

const NAMED = 4; // of those inside; the rest is a number
const LOOK_MS = 15_000;

let asked = { room: '', fixed: false };
let parts = null; // the pickers and the level, while the view is shown
let looking = 0;

/** Shows the view; `room` from the link is not asked for again. */
export function showJoin({ room, name }) {
  asked = { room, fixed: Boolean(room) };
  $('room-field').hidden = asked.fixed;
  $('room-input').value = room;
  $('name-input').value = name;
  complain('room-input', null);
  complain('name-input', null);
  write();
  buildDevices();
  showInside(null);
  clearInterval(looking);
  if (asked.fixed) {
    look();
    looking = setInterval(() => document.hidden || look(), LOOK_MS);
  }
  if (matchMedia('(pointer: fine)').matches) $(room ? 'name-input' : 'room-input').focus(); // a phone's keyboard would cover the page
}

/** Gives back what the view holds. */
function leave() {
  clearInterval(looking);
  parts?.level.stop();
  parts = null;
  $('join-devices').replaceChildren();
  $('preview-video').srcObject = null;
}

function write() {
  put($('join-title'), asked.fixed ? asked.room : t('join.title'));
  for (const id of ['room-input', 'name-input']) if ($(id).getAttribute('aria-invalid') !== 'true') put($(id.replace('input', 'hint')), t(`join.${id.split('-')[0]}_hint`));
}

// --- who is inside ---

async function look() {
  const url = new URL('/room-info', location.href);
  url.searchParams.set('room', asked.room);
  const headers = page.token ? { Authorization: `Bearer ${page.token}` } : {};
  const answer = await fetch(url, { headers, signal: AbortSignal.timeout(5_000) }).catch(() => null);
  if (answer?.status === 404) clearInterval(looking); // a server that does not tell
  showInside(answer?.ok ? await answer.json().catch(() => null) : null);
}

function showInside(info) {
  const names = info?.open && Array.isArray(info.participants) ? info.participants.map((one) => String(one?.name ?? one)) : null;
  $('inside').hidden = !asked.fixed;
  $('inside').classList.toggle('is-unknown', !names); // its place is kept: nothing jumps when it is known
  if (!names) return;
  $('inside-faces').replaceChildren(...names.slice(0, NAMED).map(face));
  put($('inside-count'), names.length ? t('join.inside', { count: names.length }) : t('join.empty'));
  const more = names.length - NAMED;
  put($('inside-names'), names.length ? list(more > 0 ? [...names.slice(0, NAMED), t('join.more', { count: more })] : names) : '');
}

// --- devices ---

function buildDevices() {
  const { devices } = page;
  parts?.level.stop();
  const level = levelBar(devices);
  const format = element('p', 'hint');
  const test = button('hint-btn', { label: t('device.test') }, async () => (await import('./meter.js')).testTone(choices.speaker));
  const pickers = ['microphone', 'camera', 'speaker'].map((source) => picker(devices, source, `join-${source}`));
  parts = { pickers, level, format };
  const below = { microphone: [level.bar, level.words], camera: [format], speaker: [test] };
  const fields = ['microphone', 'camera', 'speaker'].map((source, index) => {
    const field = element('div', `field field--${source}`);
    const label = element('label', '', t(`device.${source}`));
    label.htmlFor = `join-${source}`;
    field.append(label, pickers[index], ...below[source]);
    return field;
  });
  $('join-devices').replaceChildren(...fields);
  showDevices();
}

function showDevices() {
  if (!parts) return;
  const { devices } = page;
  for (const one of parts.pickers) one.refresh();
  parts.level.refresh();
  for (const source of ['microphone', 'camera']) showDevice(source);
  const picture = devices.status('camera') === 'on';
  const { height, frameRate } = picture ? devices.track('camera').getSettings() : {};
  put(parts.format, height ? t('device.format', { height: String(height), rate: Math.round(frameRate ?? 30) }) : '');
  $('preview-video').hidden = !picture;
  const shown = picture ? devices.stream : null;
  if ($('preview-video').srcObject !== shown) $('preview-video').srcObject = shown;
  const on = (source) => ['on', 'starting'].includes(devices.status(source));
  const will = on('microphone') ? (on('camera') ? 'both' : 'microphone') : on('camera') ? 'camera' : 'none';
  put($('join-will'), t(`join.will.${will}`));
  $('join-devices').classList.toggle('is-empty', ['microphone', 'camera'].every((source) => isProblem(devices.status(source))));
  showProblems(picture);
}

function showProblems(picture) {
  const box = $('preview-problem');
  const { devices } = page;
  const problems = deviceProblems(devices.status('microphone'), devices.status('camera'));
  const key = JSON.stringify([problems, picture]);
  if (box.dataset.key === key) return; // said already: a status region speaks at every change
  box.dataset.key = key;
  box.classList.toggle('has-picture', picture);
  box.replaceChildren(
    ...problems.map((problem) => {
      const line = element('div', 'preview__line');
      line.append(element('p', '', problem.text));
      if (problem.insecure) line.append(secureLink());
      if (problem.action) line.append(button('btn btn--small', { label: problem.action }, () => devices.start(problem.sources)));
      return line;
    }),
  );
}

// --- the form ---

function submit(event) {
  event.preventDefault();
  const room = $('room-input').value.trim();
  const name = $('name-input').value.trim();
  complain('name-input', name ? null : t('join.name_missing'));
  complain('room-input', room ? null : t('join.room_missing'));
  if (room && name) page.actions.join({ room, name });
  else $(room ? 'name-input' : 'room-input').focus();
}

/** Puts a sentence in place of a field's hint; null brings the hint back. */
function complain(id, sentence) {
  const hint = $(id.replace('input', 'hint'));
  hint.textContent = sentence ?? t(`join.${id.split('-')[0]}_hint`);
  hint.classList.toggle('is-wrong', sentence !== null);
  $(id).setAttribute('aria-invalid', String(sentence !== null));
}

$('join-form').addEventListener('submit', submit);
for (const id of ['room-input', 'name-input']) $(id).addEventListener('input', () => complain(id, null));
for (const source of ['microphone', 'camera']) {
  document.querySelector(`.puck[data-toggle=${source}]`).addEventListener('click', () => page.actions.toggle(source));
}
page.on('devices', showDevices);
page.on('view', ({ name }) => name !== 'join' && leave());
texts.addEventListener('change', () => {
  write();
  if (parts) buildDevices();
});
write();
await styled('before.css');
