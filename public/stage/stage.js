/**
 * The stage: all tiles in a grid, or one large tile and the others in a strip. It decides which tile is large and which ones
 * are visible, and reports the visible videos to the room.
 */

import { cornerPlace, nextCorner } from './corner.js';
import { $, put, watchSize } from '../base/dom.js';
import { choose, gridPlaces, seatsThatFit, splitPlaces } from './grid.js';
import { page } from '../app/page.js';
import { seatsOf } from './seats.js';
import { choices } from '../base/storage.js';
import { t } from '../i18n/texts.js';
import { Tile } from './tile.js';

const SPEAKER_MS = 800; // how long a new dominant speaker speaks before tiles move
const VIEW_MS = 200; // delay before the visible videos are reported
const STRIP_PX = 150; // a lower stage (above a phone's panel) shows at most three tiles
const RETURN_MS = 20_000; // how long others may take to come back after a restart of the server, each after a pause of their own
const WEAK = 3; // a lower quality score, of 4.4, marks the tile as weak

export class Stage {
  #box = $('tiles');
  #tiles = new Map(); // key → Tile
  #order = []; // keys of all seats, your own last
  #shown = []; // keys of the visible others, in the order of their places
  #pinned = null; // key
  #spotlight = null; // true: one large tile; false: grid; null: large if a screen is shared, otherwise grid
  #awaits = false; // whether others are about to come back
  #speaker = null; // peer id of the dominant speaker
  #spoke = new Map(); // peer → time of last speech
  #volumes = new Map(); // peer → 0 to 1
  #active = null; // key of the tile in the tab order
  #bar = null; // ShareBar, created when a screen is first shared
  #timers = {};
  #told = '';

  constructor() {
    watchSize(this.#box, () => this.#layOut(false));
    page.on('speakers', (now) => this.#speak(now));
    page.on('quality', (now) => this.#mark(now?.peers ?? {}));
    page.on('devices', () => this.#each((tile) => tile.setSink(page.devices.speaker)));
    page.on('welcome', ({ resumed }) => resumed || this.#await());
    page.on('call', ({ again }) => again || this.clear());
    document.addEventListener('visibilitychange', () => this.#tellView());
    this.#box.addEventListener('focusin', (/** @type {FocusEvent & { target: Element }} */ { target }) => this.#activate(target.closest('.tile')));
    $('stage-more').addEventListener('click', () => page.actions.panel('people'));
  }

  // --- what is shown ---

  /** Updates the tiles to the current state of the room. */
  sync() {
    const { room, devices } = page;
    const me = page.listens ? null : { picture: devices.track('camera'), screen: devices.track('screen'), muted: devices.status('microphone') !== 'on' };
    const seats = seatsOf(room, me, () => page.changed());
    this.#seat(seats);
    this.#invite(room);
    this.#speak(room.speakers, false);
    this.#layOut(true);
  }

  /** What somebody who is alone sees. */
  #invite(room) {
    if (room.participants.size) this.#awaits = false;
    const kind = this.#awaits ? 'awaited.text' : page.link ? 'text' : room.permissions?.moderate ? 'moderator' : 'private';
    $('invitation').hidden = room.self === null || room.participants.size > 0 || this.#order.length > 1;
    put($('invitation-title'), t(this.#awaits ? 'invite.awaited.title' : 'invite.title'));
    put($('invitation-text'), t(`invite.${kind}`));
    put($('room-link'), page.link.replace(/^https?:\/\//, ''));
    $('room-link').parentElement.hidden = !page.link || this.#awaits;
  }

  /** This page joined anew: whoever it still shows lost the call with it, and comes back as well. */
  #await() {
    if (!this.#order.some((key) => !this.#tiles.get(key).isSelf)) return;
    this.#awaits = true;
    clearTimeout(this.#timers.awaits);
    this.#timers.awaits = setTimeout(() => {
      this.#awaits = false;
      page.changed();
    }, RETURN_MS);
  }

  clear() {
    this.#seat([]);
    this.#awaits = false;
    this.#pinned = this.#spotlight = this.#speaker = null;
    this.#shown = [];
    this.#spoke.clear();
    this.#bar?.show(null);
    for (const timer of Object.values(this.#timers)) clearTimeout(timer);
  }

  /** Toggles between the grid and one large tile. */
  toggleView() {
    this.#spotlight = this.#main() === null;
    this.#pinned = null;
    this.#layOut(true);
  }

  pin(tile) {
    const pinned = this.#pinned === tile.key;
    this.#pinned = pinned ? null : tile.key;
    if (pinned && this.#spotlight !== true) this.#spotlight = null;
    this.#layOut(true);
  }

  isPinned(tile) {
    return tile.key === this.#pinned;
  }

  volumeOf(peer) {
    return this.#volumes.get(peer) ?? 1;
  }

  setVolume(peer, volume) {
    this.#volumes.set(peer, volume);
    this.#each((tile) => tile.peer === peer && !tile.isSelf && (tile.video.volume = volume));
  }

  /** Lays out again after a change that affects places. */
  rearrange() {
    this.#layOut(true);
  }

  get tiles() {
    return this.#tiles.values();
  }

  /** The bar under a shared screen; null if none was shared yet. */
  get bar() {
    return this.#bar;
  }

  /** Starts sound that the browser's autoplay policy blocked; call it in a user gesture. */
  resume() {
    this.#each((tile) => tile.resume());
  }

  #each(then) {
    for (const tile of this.#tiles.values()) then(tile);
  }

  #seat(seats) {
    const byKey = new Map(seats.map((seat) => [seat.key, seat]));
    for (const [key, tile] of this.#tiles) {
      if (byKey.has(key)) continue;
      if (tile.element.contains(document.activeElement)) $('call-view').focus();
      tile.close();
      this.#tiles.delete(key);
    }
    for (const [key, seat] of byKey) {
      if (!this.#tiles.has(key)) this.#add(key, seat);
      this.#tiles.get(key).update(seat);
    }
    this.#order = [...byKey.keys()];
    if (this.#pinned && !byKey.has(this.#pinned)) this.#pinned = null;
  }

  #add(key, seat) {
    const tile = new Tile(seat, {
      pin: (one) => this.pin(one),
      menu: page.actions.tileMenu,
      move: () => (nextCorner(), this.#layOut(true)),
      blocked: page.actions.soundHeld,
    });
    tile.setSink(page.devices.speaker);
    this.#tiles.set(key, tile);
    tile.video.volume = this.volumeOf(seat.peer);
    this.#box.append(tile.element);
  }

  // --- active speaker ---

  #speak({ dominant, speaking }, now = true) {
    for (const peer of speaking) this.#spoke.set(peer, performance.now());
    this.#each((tile) => {
      const camera = tile.source === 'camera';
      tile.speak(camera && speaking.includes(tile.peer), camera && tile.peer === dominant);
    });
    if (dominant === this.#speaker || dominant === page.room.self || !dominant) return clearTimeout(this.#timers.speaker);
    const then = () => {
      this.#speaker = dominant;
      if (now) this.#layOut(true);
    };
    clearTimeout(this.#timers.speaker);
    if (this.#speaker === null || !now) then();
    else this.#timers.speaker = setTimeout(then, SPEAKER_MS);
  }

  #mark(scores) {
    this.#each((tile) => {
      const weak = tile.source === 'camera' && scores[tile.peer] < WEAK;
      if (tile.weak === weak) return;
      tile.weak = weak;
      tile.update(tile.seat);
    });
  }

  // --- layout ---

  /** The key of the large tile, or null in a grid. */
  #main() {
    if (this.#pinned) return this.#pinned;
    const lit = `${page.room?.spotlight} camera`; // whom a moderator has everybody show
    if (this.#tiles.has(lit) && this.#order.length > 1 && !this.#tiles.get(lit).isSelf) return lit;
    if (this.#spotlight === false || this.#order.length < 2) return null;
    const screen = this.#order.filter((key) => this.#tiles.get(key).source !== 'camera' && !this.#tiles.get(key).isSelf).at(-1);
    if (screen) return screen;
    if (!this.#spotlight) return null;
    const speaker = `${this.#speaker} camera`;
    return this.#tiles.has(speaker) ? speaker : this.#order.find((key) => !this.#tiles.get(key).isSelf);
  }

  /** Lays the tiles out. `moving` animates them to their places; resizing the window does not. */
  #layOut(moving) {
    if ($('call-view').hidden) return;
    const { clientWidth: width, clientHeight: height } = this.#box;
    if (!width || !height) return;
    const gap = parseFloat(getComputedStyle(document.documentElement).getPropertyValue('--gap'));
    const main = this.#main();
    const places = main === null ? this.#grid(width, height, gap) : this.#split(main, width, height, gap);
    const from = moving ? this.#rectangles() : null;
    const corner = places.corner ?? null;
    for (const [key, tile] of this.#tiles) {
      const place = places.of.get(key);
      tile.element.classList.toggle('is-corner', key === corner);
      tile.moveKey.hidden = key !== corner;
      tile.pinKey.hidden = key === corner;
      tile.setRole({ pinned: key === this.#pinned, main: key === main, large: key === main || (corner !== null && key !== corner) });
      tile.setAway(!place);
      if (place) tile.put(place);
    }
    if (moving) this.#move(from, this.#rectangles());
    this.#showMore(places.more, this.#order.length - places.of.size);
    this.#showBar(places.bar ? this.#tiles.get(main) : null, places.bar);
    $('view-button').querySelector('use').setAttribute('href', main === null ? '#i-grid' : '#i-spotlight');
    this.#tab([...places.of.keys()]);
    this.#tellView();
  }

  /** Measures all tiles at once: measuring between writes would force a reflow for each tile. */
  #rectangles() {
    return new Map([...this.#tiles].map(([key, tile]) => [key, tile.element.getBoundingClientRect()]));
  }

  #move(from, to) {
    for (const [key, tile] of this.#tiles) tile.move(from.get(key), to.get(key));
  }

  #grid(width, height, gap) {
    const self = this.#order.slice(-1).filter((key) => this.#tiles.get(key).isSelf); // none if the user only watches
    const others = this.#order.slice(0, this.#order.length - self.length);
    const area = { x: 0, y: 0, width, height };
    if (others.length < 2) {
      const of = new Map(others.map((key) => [key, area]));
      const presents = !others.length && page.room.participants.size > 0; // all others are viewers
      for (const key of self) of.set(key, presents ? area : cornerPlace(choices.corner, width, height));
      return { of, corner: presents ? null : self[0] };
    }
    const all = this.#order.length;
    const fit = height < STRIP_PX ? Math.min(3, all) : seatsThatFit(all, width, height, gap);
    const places = gridPlaces(fit, area, gap);
    const withMore = fit < all && fit > 2;
    const keys = [...this.#choose(others, fit - self.length - (withMore ? 1 : 0)), ...(withMore ? [null] : []), ...self];
    const of = new Map(keys.map((key, index) => [key, places[index]]));
    const more = of.get(null) ?? null;
    of.delete(null);
    return { of, more };
  }

  #split(main, width, height, gap) {
    const rest = this.#order.filter((key) => key !== main);
    const shared = this.#tiles.get(main).source !== 'camera';
    const { main: place, bar, strip, more } = splitPlaces(rest.length, width, height, gap, shared);
    const own = rest.filter((key) => this.#tiles.get(key).isSelf && this.#tiles.get(key).source === 'camera').slice(0, strip.length > 1 ? 1 : 0);
    const others = rest.filter((key) => !own.includes(key));
    const keys = this.#choose(others, strip.length - own.length);
    const of = new Map([[main, place]]);
    [...keys, ...own].forEach((key, index) => of.set(key, strip[index]));
    return { of, bar, more };
  }

  /** Chooses which of the others are visible: shared screens first. */
  #choose(keys, places) {
    const spoke = new Map(keys.map((key) => [key, this.#spoke.get(this.#tiles.get(key).peer)]));
    const cameras = keys.filter((key) => this.#tiles.get(key).source === 'camera');
    const screens = keys.filter((key) => !cameras.includes(key)).slice(0, places);
    const people = choose(cameras, places - screens.length, { before: this.#shown, speaker: `${this.#speaker} camera`, spoke });
    return (this.#shown = [...screens, ...people]);
  }

  async #showBar(tile, place) {
    if (this.#bar) return this.#bar.show(tile, place);
    if (!tile) return;
    const { ShareBar } = await page.actions.later();
    this.#bar ??= new ShareBar($('stage'));
    this.#layOut(false);
  }

  #showMore(place, count) {
    const key = $('stage-more');
    key.hidden = !place || !count;
    if (key.hidden) return;
    for (const [name, value] of [['--x', place.x], ['--y', place.y], ['--w', place.width], ['--h', place.height]]) key.style.setProperty(name, `${value}px`);
    put(key, t('stage.more', { count }));
  }

  /** Reports the visible videos and their sizes in device pixels; the server need not send the others. */
  #tellView() {
    clearTimeout(this.#timers.view);
    this.#timers.view = setTimeout(() => {
      const floating = document.pictureInPictureElement;
      const published = ({ peer, source }) => page.room.participants.get(peer)?.tracks.has(source);
      const videos = [...this.#tiles.values()]
        .filter((tile) => published(tile) && (document.hidden ? tile.video === floating : !tile.element.matches('.is-away')))
        .map(({ peer, source, place }) => ({ peer, source, width: Math.round(place.width * devicePixelRatio), height: Math.round(place.height * devicePixelRatio) }));
      const said = JSON.stringify([page.room.self, videos]);
      if (page.room.state !== 'joined' || this.#told === said) return;
      this.#told = said;
      page.room.view?.(videos);
    }, VIEW_MS);
  }

  // --- keyboard: one tab stop for all tiles, arrow keys between them (tile-keys.js) ---

  #tab(keys) {
    if (!keys.includes(this.#active)) this.#active = keys[0];
    for (const [key, tile] of this.#tiles) tile.setTabbable(key === this.#active);
  }

  #activate(node) {
    const found = [...this.#tiles.values()].find((tile) => tile.element === node);
    if (!found || found.key === this.#active) return;
    this.#active = found.key;
    for (const [key, tile] of this.#tiles) tile.setTabbable(key === this.#active);
  }
}
