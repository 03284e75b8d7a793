/** Moderation of participants, the room and its lobby, for users with the permission `moderate`. The server enforces it. */

import { $, button, element, put } from '../base/dom.js';
import { openDialog } from '../ui/overlay.js';
import { page } from '../app/page.js';
import { chime, Gathered, mark, notify, withdraw } from '../app/signs.js';
import { panels } from './panel.js';
import { number, t, texts } from '../i18n/texts.js';
import { isViewer } from '../stage/seats.js';
import { closeToast, hasToast, say, toast } from '../ui/toasts.js';

const RINGS = 4;
const RING_MS = 10_000; // from one to the next

let ringing = 0;
let waiting = []; // [{ peer, name }] in the lobby, in order of arrival
const came = new Gathered(knock); // into the lobby, and not told yet

export const moderates = () => page.room?.permissions?.moderate === true;
export const inLobby = () => waiting;

/** Sends a moderation action on a peer in the room or in the lobby. */
function act(action, peer, source = null) {
  if (!page.room.send('moderate', { action, peer, source })) toast('moderate', t('moderate.not_sent'), { icon: 'warning' });
}

export const admit = (peer) => act('admit', peer);
export const refuse = (peer) => act('refuse', peer);

/** A confirmation dialog for actions that cannot be undone. Resolves to true if confirmed. */
function confirm({ title, text, yes }) {
  return new Promise((resolve) => {
    let answer = false;
    const dialog = openDialog({
      id: 'confirm',
      title,
      body: element('p', 'lead', text),
      foot: [
        button('btn', { label: t('cancel') }, () => dialog.close()),
        button('btn btn--danger', { label: yes }, () => {
          answer = true;
          dialog.close();
        }),
      ],
      className: 'dialog--small',
    });
    dialog.addEventListener('close', () => resolve(answer));
    dialog.querySelector('.dialog__foot .btn').focus(); // Cancel
  });
}

async function remove({ peer, name }) {
  if (await confirm({ title: t('moderate.remove.title', { name }), text: t('moderate.remove.text'), yes: t('moderate.remove.yes') })) act('remove', peer);
}

/** The menu item that has everybody show somebody large, or no longer. */
function spotlightItem(peer) {
  const lit = page.room.spotlight === peer;
  const then = () => page.room.send('spotlight', { peer: lit ? null : peer }) || toast('moderate', t('moderate.not_sent'), { icon: 'warning' });
  return { icon: 'spotlight', label: t(lit ? 'moderate.spotlight_off' : 'moderate.spotlight'), then };
}

/** Menu items to moderate a participant; empty without the permission. */
export function itemsFor(/** @type {{ peer?: string, name?: string, isSelf?: boolean }} */ { peer, name, isSelf }) {
  const person = page.room.participants.get(peer);
  if (moderates() && isSelf && !page.listens && page.room.participants.size) return [spotlightItem(page.room.self)];
  if (!moderates() || isSelf || !person) return [];
  const on = (source) => person.tracks.has(source) && !person.tracks.get(source).muted;
  const items = [];
  if (on('microphone')) items.push({ icon: 'microphone-off', label: t('moderate.mute'), then: () => act('mute', peer) });
  else if (!isViewer(person)) items.push({ icon: 'microphone', label: t('moderate.ask_unmute'), then: () => act('ask_unmute', peer) });
  if (on('camera')) items.push({ icon: 'camera-off', label: t('moderate.stop_video'), then: () => act('mute', peer, 'camera') });
  if (on('screen')) items.push({ icon: 'screen', label: t('moderate.stop_share'), then: () => act('mute', peer, 'screen') });
  if (!isViewer(person)) items.push(spotlightItem(peer));
  if (items.length) items.push(null);
  items.push({ icon: 'remove', label: t('moderate.remove'), bad: true, then: () => remove({ peer, name }) });
  return items;
}

function muteAll() {
  const loud = [...page.room.participants.values()].filter(({ tracks }) => tracks.has('microphone') && !tracks.get('microphone').muted);
  for (const { peer } of loud) act('mute', peer);
  toast('moderate', t('moderate.muted_all', { count: loud.length }), { icon: 'microphone-off' });
}

async function endCall() {
  if (await confirm({ title: t('moderate.end.title'), text: t('moderate.end.text'), yes: t('moderate.end.yes') }) && page.room.send('end_call', {})) page.closed = page.room;
}

/** Opens the dialog to manage the room. */
export function openManage() {
  const rows = element('div', 'stack');
  const keys = ['locked', 'lobby'].map((name) => [name, toggle(name, rows)]);
  const show = () => keys.forEach(([name, key]) => key.setAttribute('aria-checked', String(Boolean(page.room.settings[name]))));
  const dialog = openDialog({
    id: 'manage',
    title: t('moderate.manage'),
    body: rows,
    foot: [
      button('btn', { label: t('moderate.mute_all'), name: 'microphone-off' }, () => {
        muteAll();
        dialog.close();
      }),
      button('btn btn--bad', { label: t('moderate.end'), name: 'leave' }, async () => {
        dialog.close();
        await endCall();
      }),
    ],
    className: 'dialog--small',
  });
  const ended = new AbortController();
  page.addEventListener('room', show, { signal: ended.signal });
  dialog.addEventListener('close', () => ended.abort());
  show();
}

/** A switch that shows the state confirmed by the server, not the one requested. */
function toggle(name, box) {
  const row = element('div', 'row row--switch');
  const words = element('p', '', t(`moderate.${name}`));
  words.append(element('small', '', t(`moderate.${name}_text`)));
  const key = button('switch', {}, () => page.room.send('room', { locked: null, lobby: null, [name]: key.getAttribute('aria-checked') !== 'true' }));
  key.setAttribute('role', 'switch');
  key.setAttribute('aria-label', t(`moderate.${name}`));
  key.dataset.setting = name;
  row.append(words, key);
  box.append(row);
  return key;
}

/** Tells of each new arrival in the lobby once, by a toast that stays; closes it when nobody waits any more. */
function lobbyChanged(now) {
  const before = new Set(waiting.map(({ peer }) => peer));
  waiting = now;
  for (const { peer } of now) if (!before.delete(peer)) came.add(peer, peer);
  for (const peer of before) came.drop(peer);
  if (!now.length || panels.open === 'people') closeToast('lobby');
  else if (hasToast('lobby')) showKnock({ spoken: true });
  if (!now.length) withdraw('knock');
  showCount();
}

const knocks = () => (waiting.length === 1 ? t('people.knocks', waiting[0]) : t('people.knock', { count: waiting.length }));
const admitOne = ([{ peer }] = waiting) => ({ label: t('people.admit'), then: () => admit(peer) });
const showAll = () => ({ label: t('people.show'), then: () => panels.show('people') });
const showKnock = (more) => toast('lobby', knocks(), { icon: 'people', ask: true, action: waiting.length === 1 ? admitOne() : showAll(), ...more });

function knock() {
  if (panels.open === 'people') {
    say(knocks()); // the panel lists them
    document.querySelector('.lobby')?.scrollIntoView({ block: 'nearest' });
  } else showKnock();
  notify('knock', knocks(), () => panels.show('people'));
  ring(RINGS);
}

/** Plays the sound of a knock, and again while the toast asks for a decision. */
function ring(times) {
  clearTimeout(ringing);
  chime('knock');
  if (times > 1) ringing = setTimeout(() => hasToast('lobby') && ring(times - 1), RING_MS);
}

function showCount() {
  mark({ waiting: waiting.length });
  $('people-count').hidden = !waiting.length;
  put($('people-count'), number(waiting.length));
  $('people-button').setAttribute('aria-label', waiting.length ? t('people.key_waiting', { count: waiting.length }) : t('key.people'));
}

page.follow('lobby', ({ waiting: now }) => lobbyChanged(now));
page.follow('permissions', () => moderates() || lobbyChanged([]));
page.follow('welcome', () => waiting.length && lobbyChanged([])); // a `lobby` event follows if somebody waits
page.follow('call', () => lobbyChanged([]));
let told = {};
page.follow('welcome', () => (told = { ...page.room.settings }));
page.follow('room', ({ locked, lobby }) => {
  if (locked !== Boolean(told.locked)) say(t(locked ? 'moderate.is_locked' : 'moderate.is_open'));
  if (lobby !== Boolean(told.lobby)) say(t(lobby ? 'moderate.has_lobby' : 'moderate.no_lobby'));
  told = { locked, lobby };
});
texts.addEventListener('change', showCount);
