/**
 * The page: three views (join, call, end), chat, banner and notices. It holds no call state; it shows what it is given and
 * tells what the person did.
 *
 * Events (detail): join { room, name } · toggle { source } · retry-devices { sources } · share · leave · copy ·
 * chat { text } · retry · rejoin · another · refresh (the tiles are to be synced again)
 */

import { deviceProblems } from './words.js';
import { element, icon, initialsOf, setIcon, Tiles, toneOf } from './tiles.js';

const CHAT_LINES = 500;
const GROUP_MS = 5 * 60_000; // lines of one person closer than this stand under one name
const NOTICE_MS = 6_000;
const NOTICES = 3;
const JOINS_MS = 5_000; // comings and goings are read out at most this often
const KEY_LABELS = { microphone: ['Mute', 'Unmute'], camera: ['Stop video', 'Start video'] };

const $ = (id) => document.getElementById(id);
const clock = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' });

export class View extends EventTarget {
  tiles = new Tiles($('tiles'), { blocked: () => this.#soundBlocked(), change: () => this.#emit('refresh') });
  #unread = 0;
  #lastLine = { peer: null, time: 0 };
  #said = [];
  #saidTimer = 0;

  constructor() {
    super();
    for (const host of document.querySelectorAll('.host-name')) host.textContent = location.host;
    for (const button of document.querySelectorAll('[data-toggle]')) this.#click(button, 'toggle', { source: button.dataset.toggle });
    this.#click($('screen-button'), 'share');
    this.#click($('leave-button'), 'leave');
    this.#click($('copy-link'), 'copy');
    this.#click($('retry-button'), 'retry');
    this.#click($('rejoin-button'), 'rejoin');
    this.#click($('another-button'), 'another');
    $('join-form').addEventListener('submit', (event) => this.#submitJoin(event));
    for (const id of ['room-input', 'name-input']) $(id).addEventListener('input', () => this.#complain(id, null));
    $('chat-button').addEventListener('click', () => this.toggleChat());
    $('chat-close').addEventListener('click', () => this.toggleChat(false));
    $('chat-form').addEventListener('submit', (event) => {
      event.preventDefault();
      const text = $('chat-input').value.trim();
      if (text) this.#emit('chat', { text });
    });
    $('call-view').addEventListener('keydown', (event) => {
      if (event.key === 'Escape' && !$('chat-panel').hidden) this.toggleChat(false);
    });
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  #click(button, type, detail) {
    button.addEventListener('click', () => this.#emit(type, detail));
  }

  #show(id) {
    for (const view of ['join-view', 'call-view', 'end-view']) $(view).hidden = view !== id;
  }

  // --- join ---

  showJoin({ room, name }) {
    this.#show('join-view');
    document.title = location.host;
    $('room-input').value = room;
    $('name-input').value = name;
    if (matchMedia('(pointer: fine)').matches) $(room ? 'name-input' : 'room-input').focus(); // a phone's keyboard would cover the page
  }

  #submitJoin(event) {
    event.preventDefault();
    const room = $('room-input').value.trim();
    const name = $('name-input').value.trim();
    this.#complain('name-input', name ? null : 'Enter a name, so that the others know who you are.');
    this.#complain('room-input', room ? null : 'Enter the name of a room: any word you agree on.');
    if (room && name) this.#emit('join', { room, name });
    else $(room ? 'name-input' : 'room-input').focus();
  }

  /** Puts a sentence in place of a field's hint; null brings the hint back. */
  #complain(id, sentence) {
    const hint = $(id.replace('input', 'hint'));
    hint.dataset.hint ??= hint.textContent;
    hint.textContent = sentence ?? hint.dataset.hint;
    hint.classList.toggle('is-wrong', sentence !== null);
    $(id).setAttribute('aria-invalid', String(sentence !== null));
  }

  /** Shows both devices everywhere: keys, preview, and what is wrong in the preview. */
  setDevices(devices) {
    for (const button of document.querySelectorAll('[data-toggle]')) {
      const source = button.dataset.toggle;
      const status = devices.status(source);
      const on = status === 'on' || status === 'starting';
      const [turnOff, turnOn] = KEY_LABELS[source];
      setIcon(button.querySelector('svg'), on ? source : `${source}-off`);
      button.classList.toggle('is-off', !on);
      const label = button.querySelector('.key__label');
      if (label) label.textContent = on ? turnOff : turnOn;
      button.setAttribute('aria-label', on ? turnOff : turnOn);
      button.title = status === 'on' || status === 'off' || status === 'starting' ? '' : `No ${source} yet: choose this to try again`;
      button.setAttribute('aria-busy', String(status === 'starting'));
    }
    const picture = devices.status('camera') === 'on';
    $('preview-video').hidden = !picture;
    const shown = picture && !$('join-view').hidden ? devices.stream : null;
    if ($('preview-video').srcObject !== shown) $('preview-video').srcObject = shown;
    $('screen-button').hidden = !devices.canShare;
    const sharing = devices.status('screen') === 'on';
    $('screen-button').setAttribute('aria-pressed', String(sharing));
    $('screen-button').classList.toggle('is-on', sharing);
    $('screen-button').querySelector('.key__label').textContent = sharing ? 'Stop sharing' : 'Share';
    this.#previewProblem(devices, picture);
  }

  #previewProblem(devices, picture) {
    const box = $('preview-problem');
    const problems = deviceProblems(devices.status('microphone'), devices.status('camera'));
    const key = JSON.stringify([problems, devices.status('camera')]);
    if (box.dataset.key === key) return; // said already: a status region speaks at every change
    box.dataset.key = key;
    box.classList.toggle('has-picture', picture);
    const lines = problems.map((problem) => {
      const line = element('div', 'preview__line');
      line.append(element('p', '', problem.text));
      if (problem.insecure) line.append(this.secureLink());
      if (problem.action) line.append(this.#button(problem.action, () => this.#emit('retry-devices', { sources: problem.sources })));
      return line;
    });
    if (!lines.length && !picture) lines.push(element('p', 'muted', devices.status('camera') === 'starting' ? 'Starting the camera. Your browser may ask you to allow it.' : 'Your camera is off.'));
    box.replaceChildren(...lines);
  }

  secureLink() {
    const link = element('a', 'btn btn--small', 'Open the secure page');
    link.href = location.href.replace(/^http:/, 'https:');
    return link;
  }

  #button(label, then) {
    const button = element('button', 'btn btn--small', label);
    button.type = 'button';
    button.addEventListener('click', then);
    return button;
  }

  // --- call ---

  showCall(room) {
    const entering = $('call-view').hidden;
    this.#show('call-view');
    document.title = `${room} · ${location.host}`;
    $('badge-room').textContent = room;
    $('badge-room').title = room;
    if (entering) $('call-view').focus();
  }

  /** How many are in the room, yourself included; 0 while that is not known. */
  setPeople(count, link) {
    $('badge-people').textContent = ['Joining', 'Only you'][count] ?? `${count} people`;
    $('room-link').textContent = link;
    $('invitation').hidden = count !== 1;
  }

  /** What stands between the person and the call: [title, text], or null when nothing does. */
  setBanner(words, frozen) {
    $('banner').hidden = !words;
    $('stage').classList.toggle('is-frozen', frozen);
    if (!words) return;
    const [title, text] = words;
    if ($('banner-title').textContent !== title) $('banner-title').textContent = title;
    $('banner-text').textContent = text;
  }

  /** A sentence in the corner, replacing an earlier one of the same id. With an action (a button or link) it stays. */
  notice(id, text, action) {
    const box = $('notices');
    box.querySelector(`[data-id="${id}"]`)?.remove();
    const line = element('div', 'notice');
    line.dataset.id = id;
    line.append(element('p', '', text));
    if (action instanceof Node) line.append(action);
    else if (action) {
      line.append(
        this.#button(action.label, () => {
          line.remove();
          action.then();
        }),
      );
    }
    const close = element('button', 'icon-btn');
    close.type = 'button';
    close.setAttribute('aria-label', 'Close');
    close.append(icon('close'));
    close.addEventListener('click', () => line.remove());
    line.append(close);
    box.append(line);
    while (box.childElementCount > NOTICES) box.firstElementChild.remove();
    if (!action) setTimeout(() => line.remove(), NOTICE_MS);
  }

  clearNotices() {
    $('notices').replaceChildren();
  }

  #soundBlocked() {
    this.notice('sound', 'Your browser holds the sound back until you tap.', { label: 'Tap to hear', then: () => this.tiles.resume() });
  }

  // --- chat ---

  toggleChat(open = $('chat-panel').hidden) {
    $('chat-panel').hidden = !open;
    $('call-view').classList.toggle('has-panel', open);
    $('chat-button').setAttribute('aria-expanded', String(open));
    $('chat-button').classList.toggle('is-on', open);
    if (open) {
      this.#setUnread(0);
      $('chat-scroll').scrollTop = $('chat-scroll').scrollHeight;
    }
    $(open ? 'chat-input' : 'chat-button').focus();
  }

  #setUnread(count) {
    this.#unread = count;
    $('chat-count').hidden = !count;
    $('chat-count').textContent = count > 99 ? '99+' : String(count);
    $('chat-button').setAttribute('aria-label', count ? `Chat, ${count} unread` : 'Chat');
  }

  addChat({ peer, name, text, time }, isSelf) {
    const follows = this.#lastLine.peer === peer && time - this.#lastLine.time < GROUP_MS;
    this.#lastLine = { peer, time };
    const line = element('li', 'message');
    if (!follows) {
      const face = element('span', `face ${toneOf(name)}`, initialsOf(name));
      face.setAttribute('aria-hidden', 'true');
      const who = element('p', 'message__who');
      const at = element('time', '', clock.format(time));
      at.dateTime = new Date(time).toISOString();
      who.append(element('bdi', 'cut', isSelf ? 'You' : name), at);
      line.append(face, who);
    }
    line.append(element('p', 'message__text', text));
    this.#addLine(line);
    if (isSelf || !$('chat-panel').hidden) return;
    this.#setUnread(this.#unread + 1);
    this.say(`Message from ${name}: ${text}`);
  }

  addChatRule(text) {
    this.#lastLine = { peer: null, time: 0 };
    this.#addLine(element('li', 'rule', text));
  }

  #addLine(line) {
    const scroll = $('chat-scroll');
    const atEnd = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 40;
    $('chat-empty').hidden = true;
    $('chat-log').append(line);
    while ($('chat-log').childElementCount > CHAT_LINES) $('chat-log').firstElementChild.remove();
    if (atEnd) scroll.scrollTop = scroll.scrollHeight;
  }

  clearChat() {
    $('chat-log').replaceChildren();
    $('chat-empty').hidden = false;
    $('chat-input').value = '';
    this.#lastLine = { peer: null, time: 0 };
    this.#setUnread(0);
  }

  chatSent() {
    $('chat-input').value = '';
    $('chat-scroll').scrollTop = $('chat-scroll').scrollHeight;
  }

  /** Reads a sentence out to those who cannot see it; several close together become one. */
  say(text) {
    this.#said.push(text);
    if (this.#saidTimer) return;
    const flush = () => {
      $('announcer').textContent = this.#said.splice(0).slice(-5).join('. ');
      this.#saidTimer = setTimeout(() => {
        this.#saidTimer = 0;
        if (this.#said.length) flush();
      }, JOINS_MS);
    };
    flush();
  }

  // --- end ---

  showEnd({ title, text, again }) {
    this.#show('end-view');
    this.tiles.clear();
    this.clearNotices();
    document.title = location.host;
    $('end-title').textContent = title;
    $('end-text').textContent = text;
    $('rejoin-button').textContent = again;
    $('end-title').focus();
  }
}
