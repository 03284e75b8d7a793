/** The people panel: who waits in the lobby, then the participants and their states. */

import { button, element, face, icon, nameWith, put, setIcon } from '../base/dom.js';
import { admit, inLobby, itemsFor, moderates, openManage, refuse } from './moderate.js';
import { openMenu } from '../ui/overlay.js';
import { page } from '../app/page.js';
import { handPlaces, isViewer, spokenNames } from '../stage/seats.js';
import { number, t, texts } from '../i18n/texts.js';
import { pausedText } from '../i18n/words.js';
import { closeToast } from '../ui/toasts.js';

const lobby = element('section', 'lobby');
const lobbyHead = element('div', 'group');
const lobbyText = element('h3');
const admitAll = button('hint-btn', {}, () => inLobby().forEach(({ peer }) => admit(peer)));
const door = element('ul');
const heading = element('h3', 'group');
const headingText = element('span');
const headingCount = element('span', 'num');
const list = element('ul');
const rows = new Map(); // peer → Row
const waiters = new Map(); // peer → Waiter
const manage = button('btn', { label: t('moderate.manage_key'), name: 'shield' }, openManage);
const invite = button('btn', { label: t('link.invite'), name: 'link' }, () => page.actions.invite());

export function panel() {
  show();
  const shown = () => {
    closeToast('lobby');
    show();
  };
  return { body: [lobby, heading, list], foot: [invite, manage], shown };
}

/** All participants: you first, then moderators, then raised hands in order, then the rest by name, viewers last. */
function everybody() {
  const { room, devices } = page;
  const tracks = new Map(['microphone', 'camera'].map((source) => [source, { muted: devices.status(source) !== 'on' }]));
  const self = { peer: room.self, name: room.name, isSelf: true, hand: room.hand, moderator: moderates(), publish: !page.listens, tracks };
  const rank = (one) => (one.moderator ? 0 : one.hand ? 1 : isViewer(one) ? 3 : 2);
  const others = [...room.participants.values()].sort((a, b) => rank(a) - rank(b) || (a.hand || 0) - (b.hand || 0) || a.name.localeCompare(b.name));
  return [self, ...others];
}

function show() {
  if (!page.room?.self) return;
  const people = everybody();
  const places = handPlaces(page.room);
  showLobby();
  put(headingText, t('people.in'));
  put(headingCount, number(people.length));
  manage.hidden = !moderates();
  const spoken = spokenNames(page.room.participants.values());
  arrange(list, rows, people, () => new Row(), (row, one) => row.show(one, places.get(one.peer), spoken.get(one.peer)));
}

function showLobby() {
  const waiting = moderates() ? inLobby() : [];
  lobby.hidden = !waiting.length;
  put(lobbyText, t('people.waiting'));
  put(admitAll.firstElementChild, t('people.admit_all'));
  admitAll.hidden = waiting.length < 2;
  const spoken = spokenNames(waiting);
  arrange(door, waiters, waiting, (one) => new Waiter(one), (row, { peer, name }) => put(row.number, spoken.get(peer).slice(name.length)));
}

const on = ({ tracks }, source) => tracks.has(source) && !tracks.get(source).muted;

/** Updates the rows of a list: reuses rows of people who stay, and keeps the focus where it was or near it. */
function arrange(box, known, people, make, update) {
  const focused = box.contains(document.activeElement) ? document.activeElement : null;
  for (const [peer, row] of known) {
    if (people.some((one) => one.peer === peer)) continue;
    row.box.remove();
    known.delete(peer);
  }
  people.forEach((one, index) => {
    if (!known.has(one.peer)) known.set(one.peer, make(one));
    const row = known.get(one.peer);
    update(row, one);
    if (box.children[index] !== row.box) box.insertBefore(row.box, box.children[index] ?? null);
  });
  if (!focused || focused === document.activeElement) return;
  const near = focused.isConnected ? focused : (box.querySelector('button:not([hidden])') ?? invite);
  near.focus();
}

class Row {
  box = element('li', 'person');
  #name = element('bdi', 'cut');
  #how = element('span');
  #place = element('b', 'num');
  #hand = element('span', 'ord');
  #voice = icon('microphone');
  #more = button('icon-btn', { name: 'more' }, () => this.#openMenu());
  #face = null;
  #one = {};

  constructor() {
    const words = element('p', 'person__name');
    words.append(this.#name, this.#how);
    this.#hand.append(icon('hand'), this.#place);
    const state = element('span', 'person__state');
    state.append(this.#hand, this.#voice);
    this.#more.setAttribute('aria-haspopup', 'menu');
    this.box.append(words, state, this.#more);
  }

  show(one, place, spoken) {
    const { peer, name, isSelf, moderator } = one;
    if (this.#one.name !== name) {
      this.#face?.remove();
      this.box.prepend((this.#face = face(name)));
    }
    this.#one = { peer, name, isSelf: Boolean(isSelf) };
    this.box.dataset.peer = peer;
    const muted = !on(one, 'microphone');
    const viewer = isViewer(one);
    const role = [moderator && t('people.moderator'), viewer && t('people.viewer')];
    const facts = [one.lost && pausedText('lost'), ...role, place && t('people.hand'), page.room.connected && on(one, 'screen') && t('people.sharing'), !viewer && !on(one, 'camera') && t('people.camera_off')];
    put(this.#name, isSelf ? t('people.self', { name }) : (spoken ?? name));
    this.#name.title = name;
    put(this.#how, facts.filter(Boolean).join(' · '));
    this.#how.hidden = !this.#how.textContent;
    this.#hand.hidden = !place;
    put(this.#place, place ? number(place) : '');
    setIcon(this.#voice, muted ? 'microphone-off' : 'microphone');
    this.#voice.removeAttribute('aria-hidden');
    this.#voice.setAttribute('role', 'img');
    this.#voice.setAttribute('aria-label', t(muted ? 'people.muted' : 'people.unmuted'));
    this.#more.title = t('people.more', { name: spoken ?? name });
    this.#more.setAttribute('aria-label', this.#more.title);
    this.#more.classList.toggle('is-gone', !this.#items().length);
  }

  /** Each tile of the person can be pinned here, also one that has no place on the stage. */
  #items() {
    const { stage } = page;
    const { peer, isSelf } = this.#one;
    const tiles = isSelf ? [] : [...stage.tiles].filter((tile) => tile.peer === peer);
    const pins = tiles.map((tile) => ({ icon: 'pin', label: t(stage.isPinned(tile) ? 'tile.unpin_one' : 'tile.pin_one', { name: tile.seat.label }), then: () => stage.pin(tile) }));
    const more = itemsFor(this.#one);
    return pins.length && more.length ? [...pins, null, ...more] : [...pins, ...more];
  }

  #openMenu() {
    openMenu(this.#more, this.#items(), { label: this.#more.title, who: this.#one.name });
  }
}

class Waiter {
  box = element('li', 'person');
  number = element('span', 'unseen'); // spoken after a name that several people have

  constructor({ peer, name }) {
    const words = element('p', 'person__name');
    const who = element('bdi', 'cut', name);
    who.title = name;
    who.append(this.number);
    words.append(who);
    const keys = [
      { key: 'people.decline', look: 'btn--plain', then: refuse },
      { key: 'people.admit', look: 'btn--tonal', then: admit },
    ].map(({ key, look, then }) => {
      const made = button(`btn ${look} btn--small`, { label: t(key) }, () => then(peer));
      made.firstElementChild.dataset.t = key;
      nameWith(made, who);
      return made;
    });
    this.box.append(face(name), words, ...keys);
  }
}

admitAll.append(element('span'));
lobbyHead.append(lobbyText, admitAll);
lobby.append(lobbyHead, door);
heading.append(headingText, headingCount);
invite.lastElementChild.dataset.t = 'link.invite';
manage.lastElementChild.dataset.t = 'moderate.manage_key';
page.on('people', show);
page.on('devices', show);
page.follow('lobby', show); // moderate.js subscribed first and has updated its list
texts.addEventListener('change', show);
show();
