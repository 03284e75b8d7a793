/** One tile: the video or initials of a participant or shared screen, the name, state icons and buttons. */

import { button, element, facesAway, icon, initialsOf, newStream, put, toneOf } from '../base/dom.js';
import { t } from '../i18n/texts.js';
import { tileText } from '../i18n/words.js';

const MOVE_MS = 320;
const APPEAR_MS = 200;
const EASE = 'cubic-bezier(.2, .7, .2, 1)';
const still = matchMedia('(prefers-reduced-motion: reduce)');

/** The speaking indicator: three moving bars. */
function wave() {
  const made = element('span', 'wave');
  made.append(element('i'), element('i'), element('i'));
  return made;
}

export class Tile {
  #stream = newStream();
  #shown = {}; // arguments of tileText()
  #away = false;
  #on;

  /** Callbacks in `on`: pin(tile), menu(tile, anchor), move(tile), blocked() if autoplay of sound is blocked. */
  constructor({ key, peer, source, isSelf = false }, on) {
    Object.assign(this, { key, peer, source, place: null, seat: {} });
    this.isSelf = isSelf;
    this.weak = false;
    this.#on = on;
    this.element = element('article', 'tile is-new');
    Object.assign(this.element.dataset, { peer, source });
    this.element.classList.toggle('is-self', isSelf);
    this.element.classList.toggle('is-screen', source !== 'camera');
    this.initials = element('span', 'initials');
    this.initials.setAttribute('aria-hidden', 'true');
    this.video = element('video');
    Object.assign(this.video, { autoplay: true, playsInline: true, muted: isSelf });
    this.why = element('p', 'why');
    this.plate = element('p', 'plate');
    this.label = element('bdi', 'cut');
    this.off = icon('microphone-off');
    this.off.classList.add('plate__off');
    this.wave = wave();
    this.weakMark = icon('weak');
    this.weakMark.classList.add('plate__weak');
    this.plate.append(this.off, this.wave, this.label, this.weakMark);
    this.flag = element('p', 'flag num');
    this.flag.append(icon('hand'), element('span'));
    this.flag.hidden = true;
    this.tools = this.#tools();
    this.element.append(this.initials, this.why, this.video, this.plate, this.flag, this.tools);
  }

  #tools() {
    const box = element('div', 'tools');
    this.pinKey = button('', { title: t('tile.pin'), name: 'pin' }, () => this.#on.pin(this));
    this.moveKey = button('', { title: t('tile.move'), name: 'move' }, () => this.#on.move(this));
    this.moreKey = button('', { title: t('key.more'), name: 'more' }, () => this.#on.menu(this, this.moreKey));
    this.moreKey.setAttribute('aria-haspopup', 'menu');
    box.append(this.pinKey, this.moveKey, this.moreKey);
    return box;
  }

  update(seat) {
    this.seat = seat;
    const { name, label, muted, hand } = seat;
    put(this.label, label);
    this.plate.title = label;
    this.off.classList.toggle('is-gone', !muted);
    this.weakMark.classList.toggle('is-gone', !this.weak);
    this.flag.hidden = !hand;
    if (hand) put(this.flag.lastChild, String(hand));
    put(this.initials, initialsOf(name));
    this.initials.className = `initials ${toneOf(name)}`;
    this.moreKey.title = t('tile.more', { name: label });
    this.moreKey.setAttribute('aria-label', this.moreKey.title);
    this.#show();
  }

  /** Hides or shows the tile. A hidden tile keeps its sound; its video is neither decoded nor requested. */
  setAway(away) {
    if (this.#away === away) return;
    this.#away = away;
    this.element.classList.toggle('is-away', away);
    this.#show();
  }

  #show() {
    const { label, muted, picture, paused, sounds, hand } = this.seat;
    const seen = this.#away ? null : picture;
    this.element.classList.toggle('has-picture', Boolean(seen));
    this.element.classList.toggle('is-mirrored', this.isSelf && this.seat.source === 'camera' && !facesAway(picture));
    put(this.why, paused ?? '');
    this.#describe({ label, muted, picture: Boolean(picture), paused, hand, weak: this.weak });
    this.#play([...sounds, seen].filter(Boolean));
  }

  speak(speaking, dominant) {
    this.element.classList.toggle('is-speaking', speaking);
    this.element.classList.toggle('is-dominant', dominant);
    this.wave.classList.toggle('is-gone', !speaking);
    this.#describe({ speaking, dominant });
  }

  /** `main`: the large tile beside a strip; `large`: large enough to need no ring around a speaker. */
  setRole({ pinned, main, large }) {
    this.element.classList.toggle('is-main', main);
    this.element.classList.toggle('is-large', large);
    this.pinKey.setAttribute('aria-pressed', String(pinned));
    this.pinKey.title = t(pinned ? 'tile.unpin' : 'tile.pin');
    this.pinKey.setAttribute('aria-label', t(pinned ? 'tile.unpin_one' : 'tile.pin_one', { name: this.seat.label }));
  }

  /** Positions the tile. */
  put(place) {
    this.place = place;
    const { style, classList } = this.element;
    for (const [name, value] of [['--x', place.x], ['--y', place.y], ['--w', place.width], ['--h', place.height]]) style.setProperty(name, `${value}px`);
    if (!classList.contains('is-new')) return;
    classList.remove('is-new');
    if (!still.matches) this.element.animate?.({ opacity: [0, 1] }, { duration: APPEAR_MS });
  }

  /** Animates the tile from its old rectangle to its current one. */
  move(from, now) {
    if (still.matches || this.#away || !from.width || !now.width) return;
    const [dx, dy] = [from.left - now.left, from.top - now.top];
    const [sx, sy] = [from.width / now.width, from.height / now.height];
    if (Math.abs(dx) + Math.abs(dy) < 1 && Math.abs(sx - 1) + Math.abs(sy - 1) < 0.01) return;
    const start = { transformOrigin: '0 0', transform: `translate(${dx}px, ${dy}px) scale(${sx}, ${sy})` };
    this.element.animate?.([start, { transformOrigin: '0 0', transform: 'none' }], { duration: MOVE_MS, easing: EASE, id: 'move' });
  }

  setTabbable(on) {
    this.element.tabIndex = on ? 0 : -1;
    for (const key of this.tools.children) key.tabIndex = on ? 0 : -1;
  }

  /** Plays on the output device with this id. */
  setSink(id) {
    if (!this.isSelf && this.video.setSinkId && this.video.sinkId !== id) this.video.setSinkId(id).catch(() => {});
  }

  resume() {
    if (this.isSelf) return;
    this.video.muted = false;
    this.#start();
  }

  close() {
    this.video.srcObject = null;
    this.element.remove();
  }

  #describe(changed) {
    const text = tileText(Object.assign(this.#shown, changed));
    if (this.element.getAttribute('aria-label') !== text) this.element.setAttribute('aria-label', text);
  }

  #play(tracks) {
    if (!this.#stream) return;
    const now = this.#stream.getTracks();
    if (tracks.length === now.length && tracks.every((track) => now.includes(track))) return;
    if (!now.length) this.#stream = newStream(); // browsers do not always resume a stream that was empty
    for (const track of now) if (!tracks.includes(track)) this.#stream.removeTrack(track);
    for (const track of tracks) this.#stream.addTrack(track);
    if (this.video.srcObject !== this.#stream) this.video.srcObject = this.#stream;
    if (tracks.length) this.#start();
  }

  #start() {
    this.video.play().catch((error) => {
      if (error.name !== 'NotAllowedError' || this.video.muted) return;
      this.video.muted = true; // video without sound until a user gesture
      this.video.play().catch(() => {});
      this.#on.blocked();
    });
  }
}
