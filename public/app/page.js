/**
 * What the parts of the page share. Every event of the current room comes out here too, with the same detail, so that a part
 * listens once and need not care which connection it is; and besides those:
 *
 *   call      detail { again }: another Room is the current one (page.room); forget the last one, unless it is the same room again
 *   people    who is here, what they send or how they are marked has changed (at most once a frame)
 *   devices   this device's tracks or their states have changed
 *   view      detail { name }: 'join', 'call' or 'end' is shown now
 *
 * `actions` is what a person can do, whatever key, menu or shortcut is used: see main.js and call.js.
 */

import { grantOf } from './address.js';
import { $ } from '../base/dom.js';
import { Devices } from '../devices/devices.js';

const KEPT = 500; // events for those who come late; older ones are forgotten

class Page extends EventTarget {
  room = null;
  devices = new Devices();
  stage = null;
  token = ''; // what the link said, kept out of the address bar
  actions = {};
  #due = 0;
  #late = new EventTarget();
  #kept = []; // what the room told while those who follow() are not here yet; then null

  on(type, then) {
    this.addEventListener(type, ({ detail }) => then(detail));
  }

  tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  /** Like on(), of what a room tells, for the parts in deferred.js: they hear what was told since the call began. */
  follow(type, then) {
    this.#late.addEventListener(type, ({ detail }) => then(detail));
  }

  /** Tells what the room told, to those who come late as soon as they are here. */
  pass(type, detail) {
    this.tell(type, detail);
    if (!this.#kept) {
      this.#late.dispatchEvent(new CustomEvent(type, { detail }));
      return;
    }
    if (type === 'call') this.#kept = [];
    this.#kept.push([type, detail]);
    if (this.#kept.length > KEPT) this.#kept.shift();
  }

  /** All who follow() are here. */
  complete() {
    const kept = this.#kept;
    this.#kept = null;
    for (const [type, detail] of kept) this.#late.dispatchEvent(new CustomEvent(type, { detail }));
  }

  /** Tells `people` once for all that changes before the next frame is drawn; hidden pages draw none. */
  changed() {
    if (this.#due) return;
    const then = () => {
      this.#due = 0;
      this.tell('people');
    };
    this.#due = document.hidden ? setTimeout(then) : requestAnimationFrame(then);
  }

  /** Shows one of the three views: join, call, end. */
  show(view) {
    const comes = $(`${view}-view`).hidden;
    for (const name of ['join', 'call', 'end']) $(`${name}-view`).hidden = name !== view;
    document.title = view === 'call' ? `${this.room.room} · ${location.host}` : location.host;
    if (comes && view === 'call') $('call-view').focus();
    this.tell('view', { name: view });
  }

  get inCall() {
    return this.room !== null && this.room.state !== 'ended';
  }

  /** Whether one was invited to watch and listen only. */
  get listens() {
    const { publish } = (this.inCall && this.room.permissions) || grantOf(this.token) || {};
    return publish === false;
  }

  /** The link to share: the room and nothing about who shares it. Empty where no link leads here: invitations do. */
  get link() {
    if (!this.room?.settings.public) return '';
    const link = new URL(location.pathname, location.href);
    link.searchParams.set('room', this.room.room);
    return link.href;
  }
}

export const page = new Page();
for (const type of ['change', 'list', 'released']) page.devices.addEventListener(type, () => page.tell('devices'));
