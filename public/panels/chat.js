/** The chat panel: messages and shared files, the unread count, and the composer. */

import { $, button, element, face, icon, watchSize } from '../base/dom.js';
import { fileName, filesAllowed, share, size, uploads } from './files.js';
import { parts } from '../ui/linkify.js';
import { page } from '../app/page.js';
import { chime, Gathered, mark, notify } from '../app/signs.js';
import { panels } from './panel.js';
import { SERVER } from '../base/server.js';
import { recall, remember } from '../base/storage.js';
import { clock, day, number, t, texts } from '../i18n/texts.js';
import { closeToast, say, toast } from '../ui/toasts.js';

const LINES = 500;
const GROUP_MS = 5 * 60_000; // lines of one person within this time are grouped under one name
const DAY_S = 86_400;
const PREVIEW = 140; // characters of a message in its preview
const NEAR_PX = 40; // of the end
const draftKey = () => `sfu.draft.${page.room.room}`;

const note = element('p', 'note');
const empty = element('p', 'empty');
const log = element('div', 'log');
const foot = element('div', 'chat-foot');
const form = element('form', 'composer');
const input = element('textarea');
const picked = element('input');
const attach = button('icon-btn', { name: 'attach' }, () => picked.click());
const newRule = element('p', 'rule rule--new');
const seen = new Set(); // ids of lines: the history and live messages may overlap
const mine = new Set(); // own peer ids, including earlier ones of this call
const news = new Gathered(preview); // unread lines that are not told yet
let watched = false;
let atEnd = true; // the newest line is in view
let unread = 0;
let last = { peer: null, name: '', time: 0 };
let lastDay = null; // date of the newest line

export function panel() {
  return { body: [note, empty, log], foot, focus: input, shown, hidden: () => newRule.remove() };
}

function shown() {
  setUnread(0);
  news.clear();
  closeToast('message');
  if (!watched) watch(scroll());
  if (newRule.isConnected) newRule.scrollIntoView({ block: 'nearest' });
  else toEnd();
}

function write() {
  const kept_s = page.room?.settings.chat_kept_s ?? 0;
  const may = page.room?.permissions?.chat !== false;
  const time = kept_s < 2 * DAY_S ? ['hour', Math.max(1, Math.round(kept_s / 3600))] : ['day', Math.round(kept_s / DAY_S)];
  const span = number(time[1], { style: 'unit', unit: time[0], unitDisplay: 'long' });
  const kept = () => (page.room.settings.chat_cleared ? t('chat.cleared') : t('chat.kept', { time: span }));
  note.textContent = kept_s ? kept() : '';
  note.hidden = !kept_s;
  empty.textContent = t(kept_s ? 'chat.empty_kept' : 'chat.empty');
  input.placeholder = t(may ? 'chat.write' : 'chat.read_only');
  input.setAttribute('aria-label', input.placeholder);
  input.disabled = !may;
  form.querySelector('.send').setAttribute('aria-label', t('chat.send'));
  form.querySelector('.send').hidden = !may;
  attach.hidden = !filesAllowed();
  attach.title = t('files.attach');
  attach.setAttribute('aria-label', attach.title);
  newRule.textContent = t('chat.new');
  $('panel').dataset.drop = t('files.drop');
  setUnread(unread);
}

function setUnread(count) {
  unread = count;
  mark({ unread });
  $('chat-count').hidden = !count;
  $('chat-count').textContent = count > 99 ? `${number(99)}+` : number(count);
  $('chat-button').setAttribute('aria-label', count ? t('chat.unread', { count }) : t('key.chat'));
}

const scroll = () => log.parentElement;

/**
 * Keeps the newest line in view when a keyboard opens, or the composer grows with its draft or files. Browsers tell of an earlier
 * scroll after the size has changed and before they tell of that: then nobody has scrolled away.
 */
function watch(box) {
  let height = box.clientHeight;
  watched = true;
  box.addEventListener('scroll', () => height === box.clientHeight && (atEnd = isAtEnd(box)), { passive: true });
  watchSize(box, () => {
    height = box.clientHeight;
    if (atEnd) toEnd();
  });
}

const isAtEnd = (box) => box.scrollHeight - box.scrollTop - box.clientHeight < NEAR_PX;
const toEnd = () => scroll() && (scroll().scrollTop = scroll().scrollHeight);

function add(line) {
  const box = scroll();
  const follows = !box || isAtEnd(box);
  empty.hidden = true;
  log.append(line);
  while (log.childElementCount > LINES) log.firstElementChild.remove();
  if (follows) toEnd();
}

function addRule(text) {
  last = { peer: null, name: '', time: 0 };
  add(element('p', 'rule', text));
}

/** Appends a line. `old` lines, written before the user joined, do not count as unread. */
function addLine(line, old = false) {
  const { id, peer, name, text, time, file } = line;
  if (id && seen.has(id)) return;
  if (id) seen.add(id);
  const isSelf = mine.has(peer);
  const counts = !isSelf && !old && !reads();
  if (counts && !unread) {
    last = { peer: null, name: '', time: 0 };
    add(newRule);
  }
  addDay(time);
  const made = element('div', 'message');
  if (last.peer !== peer || last.name !== name || time - last.time >= GROUP_MS) made.append(face(name), who(name, isSelf, time, !peer));
  last = { peer, name, time };
  if (id) made.dataset.id = id;
  made.append(file ? card(file, line) : words(text));
  add(made);
  if (!counts) return;
  setUnread(unread + 1);
  news.add(line, line);
  if (panels.open !== 'chat') say(file ? t('files.shared', { name, file: file.name }) : t('chat.message', { name, text }));
}

/** Whether the user sees new lines. */
const reads = () => panels.open === 'chat' && !document.hidden;

/** Tells of the last of some unread lines. */
function preview(lines) {
  const { name, text, file } = lines.at(-1);
  const said = file ? t('files.shared', { name, file: file.name }) : t('signs.message', { name, text: beginning(text) });
  const then = () => panels.show('chat');
  if (panels.open !== 'chat') toast('message', said, { icon: 'chat', brief: true, spoken: true, action: { label: t('people.show'), then } });
  chime('message');
  notify('message', said, then);
}

/** The beginning of a text, in one line. */
function beginning(text) {
  const letters = [...text.replace(/\s+/g, ' ')];
  return letters.length > PREVIEW ? `${letters.slice(0, PREVIEW).join('').trimEnd()}…` : letters.join('');
}

/** Adds a date rule if the day differs from the last line's; the first line of today needs none. */
function addDay(time) {
  const date = new Date(time).toDateString();
  const before = lastDay ?? new Date().toDateString();
  lastDay = date;
  if (date === before) return;
  addRule(day(time));
}

/** `official`: the company wrote it. That is said beside the name, which may be like somebody else's. */
function who(name, isSelf, time, official) {
  const box = element('p', 'message__who');
  const at = element('time', '', clock(time));
  at.dateTime = new Date(time).toISOString();
  box.append(element('bdi', 'cut', isSelf ? t('you') : name), at);
  box.firstChild.title = name;
  if (official) box.firstChild.after(element('span', 'muted', t('chat.official')));
  return box;
}

function words(text) {
  const box = element('p', 'message__text');
  for (const part of parts(text)) {
    if (!part.href) {
      box.append(part.text);
      continue;
    }
    const link = element('a', '', part.text);
    Object.assign(link, { href: part.href, target: '_blank', rel: 'noopener noreferrer nofollow', dir: 'ltr' });
    box.append(link);
  }
  return box;
}

/** The card of a shared file: a download link. The page never renders a file's content. */
function card({ name, size: bytes, url }, { name: who, time }) {
  const link = element('a', 'filecard');
  link.href = new URL(`.${url}`, SERVER).href;
  link.download = name;
  link.setAttribute('aria-label', t('files.download', { name, size: size(bytes), who, time: clock(time) }));
  const box = element('div');
  box.append(fileName(name), ' ', element('span', 'muted', size(bytes))); // two words, as in the label
  link.append(icon('file'), box, icon('download'));
  return link;
}

/** Replaces a deleted line's text with a placeholder, so that the lines grouped with it keep their name. */
function remove({ id }) {
  const line = log.querySelector(`[data-id="${CSS.escape(id)}"]`);
  line?.lastElementChild.replaceWith(element('p', 'message__text muted', t('chat.deleted')));
}

function clear() {
  log.replaceChildren();
  uploads.replaceChildren();
  empty.hidden = false;
  input.value = recall('sessionStorage', draftKey());
  lastDay = null;
  seen.clear();
  mine.clear();
  last = { peer: null, name: '', time: 0 };
  news.clear();
  setUnread(0);
}

function send(event) {
  event?.preventDefault();
  const text = input.value.trim();
  if (!text) return;
  if (page.room.chat(text)) {
    input.value = '';
    remember('sessionStorage', draftKey(), '');
    newRule.remove();
    toEnd();
  } else toast('chat', t(new TextEncoder().encode(text).length > page.room.limits?.chat_bytes ? 'chat.too_long' : 'chat.not_sent'), { icon: 'warning' });
}

/** Shares files dropped on the chat; elsewhere, keeps the browser from leaving the call to open them. */
function drop(event) {
  if (!page.inCall || !event.dataTransfer?.types.includes('Files')) return;
  event.preventDefault();
  const here = panels.open === 'chat' && $('panel').contains(event.target);
  event.dataTransfer.dropEffect = here && filesAllowed() ? 'copy' : 'none';
  $('panel').classList.toggle('is-dropping', here && event.type === 'dragover' && filesAllowed());
  if (here && event.type === 'drop') share([...event.dataTransfer.files]);
}

log.id = 'chat-log';
log.setAttribute('role', 'log');
log.setAttribute('aria-live', 'polite');
input.id = 'chat-input';
input.rows = 1;
input.autocomplete = 'off';
input.dir = 'auto';
input.enterKeyHint = 'send';
picked.type = 'file';
picked.multiple = true;
picked.hidden = true;
picked.id = 'chat-files';
const submit = button('send', { name: 'send' });
submit.type = 'submit';
form.append(attach, picked, input, submit);
foot.append(uploads, form);
form.addEventListener('submit', send);
input.addEventListener('keydown', (event) => {
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
  send(event);
});
input.addEventListener('input', () => remember('sessionStorage', draftKey(), input.value));
input.addEventListener('paste', (event) => {
  if (!event.clipboardData.files.length) return;
  event.preventDefault();
  share([...event.clipboardData.files]);
});
picked.addEventListener('change', () => {
  share([...picked.files]);
  picked.value = ''; // so that choosing the same file again fires `change`
});
for (const type of ['dragover', 'dragleave', 'drop']) addEventListener(type, drop);
texts.addEventListener('change', write);
write();
if (page.room) input.value = recall('sessionStorage', draftKey());
page.follow('welcome', ({ peer }) => {
  mine.add(peer);
  write();
});
for (const type of ['room', 'permissions']) page.follow(type, write);
page.follow('chat', (line) => addLine(line));
page.follow('history', ({ lines }) => lines.forEach((line) => addLine(line, mine.size === 1)));
page.follow('chat_deleted', remove);
page.follow('joined', ({ name }) => addRule(t('signs.joined', { names: name, count: 1 })));
page.follow('left', ({ name }) => addRule(t('signs.left', { names: name, count: 1 })));
document.addEventListener('visibilitychange', () => reads() && unread && shown());
page.follow('call', ({ again }) => again || clear());
