/** The chat panel. */

import { $, button, element, face } from './dom.js';
import { page } from './page.js';
import { panels } from './panel.js';
import { clock, t, texts } from './texts.js';
import { say, toast } from './toasts.js';

const LINES = 500;
const GROUP_MS = 5 * 60_000; // lines of one person closer than this stand under one name

const empty = element('p', 'empty');
const log = element('ol', 'log');
const form = element('form', 'composer');
const input = element('input');
let unread = 0;
let last = { peer: null, time: 0 };

export function panel() {
  return { body: [empty, log], foot: form, focus: input, shown: () => (toEnd(), setUnread(0)) };
}

function write() {
  empty.textContent = t('chat.empty');
  input.placeholder = t('chat.write');
  input.setAttribute('aria-label', t('chat.write'));
  form.querySelector('.send').setAttribute('aria-label', t('chat.send'));
  setUnread(unread);
}

function setUnread(count) {
  unread = count;
  $('chat-count').hidden = !count;
  $('chat-count').textContent = count > 99 ? '99+' : String(count);
  $('chat-button').setAttribute('aria-label', count ? t('chat.unread', { count }) : t('key.chat'));
}

const scroll = () => log.parentElement;
const toEnd = () => scroll() && (scroll().scrollTop = scroll().scrollHeight);

function add(line) {
  const box = scroll();
  const atEnd = !box || box.scrollHeight - box.scrollTop - box.clientHeight < 40;
  empty.hidden = true;
  log.append(line);
  while (log.childElementCount > LINES) log.firstElementChild.remove();
  if (atEnd) toEnd();
}

function addLine({ peer, name, text, time }) {
  const isSelf = peer === page.room.self;
  const follows = last.peer === peer && time - last.time < GROUP_MS;
  last = { peer, time };
  const line = element('li', 'message');
  if (!follows) {
    const who = element('p', 'message__who');
    const at = element('time', '', clock(time));
    at.dateTime = new Date(time).toISOString();
    who.append(element('bdi', 'cut', isSelf ? t('you') : name), at);
    line.append(face(name), who);
  }
  line.append(element('p', 'message__text', text));
  add(line);
  if (isSelf || panels.open === 'chat') return;
  setUnread(unread + 1);
  say(t('chat.message', { name, text }));
}

function addRule(text) {
  last = { peer: null, time: 0 };
  add(element('li', 'rule', text));
}

function clear() {
  log.replaceChildren();
  empty.hidden = false;
  input.value = '';
  last = { peer: null, time: 0 };
  setUnread(0);
}

function send(event) {
  event.preventDefault();
  const text = input.value.trim();
  if (!text) return;
  if (page.room.chat(text)) {
    input.value = '';
    toEnd();
  } else toast('chat', t(page.room.state === 'joined' && !page.room.trouble ? 'chat.too_long' : 'chat.not_sent'));
}

log.id = 'chat-log';
log.setAttribute('role', 'log');
log.setAttribute('aria-live', 'polite');
input.id = 'chat-input';
input.autocomplete = 'off';
input.enterKeyHint = 'send';
form.append(input, button('send', { name: 'send' }));
form.lastElementChild.type = 'submit';
form.addEventListener('submit', send);
texts.addEventListener('change', write);
write();
page.on('chat', addLine);
page.on('joined', ({ name }) => addRule(t('stage.joined', { name })));
page.on('left', ({ name }) => addRule(t('stage.left', { name })));
page.on('call', ({ again }) => again || clear());
