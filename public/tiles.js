/** The stage: a tile for everybody and for every shared screen, as large as the window allows. */

import { $, element, icon, initialsOf, toneOf } from './dom.js';
import { page } from './page.js';
import { t } from './texts.js';
import { pausedText, tileText } from './words.js';

const GAP_PX = 12;
const WIDEST = 16 / 9;
const TONES = 6;

/** The size of n equal tiles that cover most of width × height: between 16:9 and `squarest`, the last row centred. */
function bestSize(n, width, height, gap) {
  const squarest = width >= height ? 4 / 3 : 3 / 4;
  let best = { width: 0, height: 0, area: 0 };
  for (let columns = 1; columns <= n; columns++) {
    const rows = Math.ceil(n / columns);
    const cell = { width: (width - gap * (columns - 1)) / columns, height: (height - gap * (rows - 1)) / rows };
    const w = Math.floor(Math.min(cell.width, cell.height * WIDEST));
    const h = Math.floor(Math.min(cell.height, w / squarest));
    if (w > 0 && h > 0 && w * h > best.area) best = { width: w, height: h, area: w * h };
  }
  return best;
}

class Tile {
  #stream = new MediaStream();
  #shown = {}; // what tileText tells
  #isSelf;
  #onblocked;

  constructor({ peer, source, isSelf }, onblocked) {
    this.#isSelf = isSelf;
    this.#onblocked = onblocked;
    this.element = element('article', 'tile');
    Object.assign(this.element.dataset, { peer, source });
    this.element.classList.toggle('is-self', isSelf);
    this.initials = element('span', 'initials');
    this.initials.setAttribute('aria-hidden', 'true');
    this.video = element('video');
    this.video.autoplay = true;
    this.video.playsInline = true;
    this.video.muted = isSelf;
    this.why = element('p', 'why');
    this.plate = element('p', 'plate');
    this.label = element('bdi', 'cut');
    this.off = icon('microphone-off');
    this.plate.append(this.off, this.label);
    this.element.append(this.initials, this.why, this.video, this.plate);
  }

  /** `sound` and `picture` are tracks or null; `muted` is null where there is no microphone to speak of; `paused` says why a
   *  picture does not come. */
  update({ name, label, sound, picture, muted, paused }) {
    this.element.classList.toggle('has-picture', Boolean(picture));
    this.label.textContent = label;
    this.plate.title = label;
    this.off.classList.toggle('is-gone', !muted);
    this.why.textContent = paused ?? '';
    this.#describe({ label, muted, picture, paused });
    this.initials.textContent = initialsOf(name);
    this.initials.className = `initials ${toneOf(name)}`;
    this.#play([sound, picture].filter(Boolean));
  }

  speak(speaking, dominant) {
    this.element.classList.toggle('is-speaking', speaking);
    this.element.classList.toggle('is-dominant', dominant);
    this.#describe({ speaking, dominant });
  }

  #describe(changed) {
    const text = tileText(Object.assign(this.#shown, changed));
    if (this.element.getAttribute('aria-label') !== text) this.element.setAttribute('aria-label', text);
  }

  resume() {
    if (this.#isSelf) return;
    this.video.muted = false;
    this.#start();
  }

  close() {
    this.video.srcObject = null;
    this.element.remove();
  }

  #play(tracks) {
    const now = this.#stream.getTracks();
    if (tracks.length === now.length && tracks.every((track) => now.includes(track))) return;
    if (!now.length) this.#stream = new MediaStream(); // an emptied stream does not always come back to life
    for (const track of now) if (!tracks.includes(track)) this.#stream.removeTrack(track);
    for (const track of tracks) this.#stream.addTrack(track);
    if (this.video.srcObject !== this.#stream) this.video.srcObject = this.#stream;
    if (tracks.length) this.#start();
  }

  #start() {
    this.video.play().catch((error) => {
      if (error.name !== 'NotAllowedError' || this.video.muted) return;
      this.video.muted = true; // a picture without sound until somebody taps
      this.video.play().catch(() => {});
      this.#onblocked();
    });
  }
}

export class Tiles {
  #box;
  #tiles = new Map();
  #on;

  /** `on.blocked()`: the browser holds sound back. `on.change()`: a track has begun or stopped to bring frames, sync again. */
  constructor(box = $('tiles'), on = { blocked() {}, change: () => page.changed() }) {
    this.#box = box;
    this.#on = on;
    page.on('speakers', (now) => this.speak(now));
    new ResizeObserver(() => this.#layOut()).observe(box);
  }

  /** Shows the room as it is now; `me` is { name, picture, muted, screen }. */
  toggleView() {}

  sync(room = page.room, me = { name: room.name, picture: page.devices.track('camera'), screen: page.devices.track('screen'), muted: page.devices.status('microphone') !== 'on' }) {
    $('invitation').hidden = room.self === null || room.participants.size > 0;
    $('room-link').textContent = page.link;
    const seats = [];
    for (const person of room.participants.values()) seats.push(...this.#seatsOf(room, person));
    const self = { peer: room.self ?? 'self', isSelf: true, name: me.name };
    if (me.screen) seats.push({ ...self, source: 'screen', label: 'Your screen', picture: me.screen });
    seats.push({ ...self, source: 'camera', label: 'You', picture: me.picture, muted: me.muted });
    this.#seat(seats);
    this.speak(room.speakers);
  }

  /** Rings the tiles of those who speak and marks the dominant one's. */
  speak({ dominant, speaking }) {
    for (const tile of this.#tiles.values()) {
      const { peer, source } = tile.element.dataset;
      tile.speak(source === 'camera' && speaking.includes(peer), source === 'camera' && peer === dominant);
    }
  }

  #seatsOf(room, { peer, name, tracks }) {
    const paused = (source) => (tracks.get(source)?.paused && !tracks.get(source).muted ? pausedText(tracks.get(source).paused) : null);
    const picture = (source) => {
      const track = tracks.get(source)?.muted || paused(source) ? null : room.media(peer, source);
      if (!track) return null;
      // a player waits for the picture before it plays the sound: no picture track before there are frames
      track.onmute = track.onunmute = this.#on.change;
      return track.muted ? null : track;
    };
    const microphone = tracks.get('microphone');
    const seats = [...tracks.entries()]
      .filter(([source, { kind }]) => kind === 'video' && source !== 'camera')
      .map(([source]) => ({ peer, source, name, label: `${name} (${source})`, picture: picture(source), paused: paused(source) }));
    const muted = !microphone || microphone.muted;
    const camera = { picture: picture('camera'), paused: paused('camera') };
    return [...seats, { peer, source: 'camera', name, label: name, sound: room.media(peer, 'microphone'), muted, ...camera }];
  }

  /** Lets sound be heard after a tap, where the browser held it back. */
  resume() {
    for (const tile of this.#tiles.values()) tile.resume();
  }

  clear() {
    this.#seat([]);
  }

  #seat(seats) {
    const keys = new Map(seats.map((seat) => [`${seat.peer} ${seat.source}`, seat]));
    for (const [key, tile] of this.#tiles) {
      if (keys.has(key)) continue;
      tile.close();
      this.#tiles.delete(key);
    }
    let previous = null;
    for (const [key, seat] of keys) {
      let tile = this.#tiles.get(key);
      if (!tile) this.#tiles.set(key, (tile = new Tile({ isSelf: false, ...seat }, this.#on.blocked)));
      tile.update(seat);
      // moving a playing video in the document interrupts it, so only where the order changed
      const next = previous ? previous.nextSibling : this.#box.firstChild;
      if (tile.element !== next) this.#box.insertBefore(tile.element, next);
      previous = tile.element;
    }
    this.#layOut();
  }

  #layOut() {
    const tiles = [...this.#tiles.values()].map((tile) => tile.element);
    const corner = tiles.length <= 2; // one or two people: you are in the corner, the seat is the other's
    for (const tile of tiles) tile.classList.toggle('is-corner', corner && tile.matches('.is-self[data-source=camera]'));
    const { clientWidth: width, clientHeight: height } = this.#box;
    const size = corner ? { width, height } : bestSize(tiles.length, width, height, GAP_PX);
    this.#box.style.setProperty('--w', `${size.width}px`);
    this.#box.style.setProperty('--h', `${size.height}px`);
  }
}
