/** The bar under a shared screen: who shares it, and the zoom controls. It never covers the picture. */

import { button, element, icon, put } from '../base/dom.js';
import { page } from '../app/page.js';
import { number, t } from '../i18n/texts.js';
import { Zoom } from '../ui/zoom.js';

const PAN_PX = 60;

export class ShareBar {
  #box = element('div', 'share-bar');
  #words = element('p', 'cut');
  #tile = null;
  #zoom = null;
  #keys = {};

  constructor(stage) {
    const tools = element('div', 'share-bar__tools');
    const make = (name, content, then) => {
      this.#keys[name] = button('', content, then);
      tools.append(this.#keys[name]);
    };
    make('out', { name: 'minus' }, () => this.#zoom.by(-1));
    make('fit', { label: ' ' }, () => this.#zoom.to(1));
    make('real', { label: ' ' }, () => this.#zoom.real());
    make('in', { name: 'plus' }, () => this.#zoom.by(1));
    make('full', { name: 'expand' }, () => this.#fullScreen());
    this.#keys.full.hidden = !document.fullscreenEnabled;
    this.#box.hidden = true;
    page.on('state', () => this.#tile && this.#write());
    this.#box.append(icon('screen'), this.#words, tools);
    stage.append(this.#box);
  }

  /** Shows the bar for a shared screen's tile at a place, or hides it if `tile` is null. */
  show(tile, place) {
    if (tile !== this.#tile) {
      this.#zoom?.close();
      this.#zoom = tile && new Zoom(tile, () => this.#write());
      this.#tile = tile;
    }
    this.#box.hidden = !tile;
    if (!tile) return;
    for (const [name, value] of [['--x', place.x], ['--y', place.y], ['--w', place.width], ['--h', place.height]]) this.#box.style.setProperty(name, `${value}px`);
    this.#write();
  }

  /** Handles a key pressed on the shared screen's tile. Returns whether it did something. */
  key({ key }) {
    if (!this.#tile || document.activeElement !== this.#tile.element) return false;
    const pans = { ArrowLeft: [PAN_PX, 0], ArrowRight: [-PAN_PX, 0], ArrowUp: [0, PAN_PX], ArrowDown: [0, -PAN_PX] };
    if (key === '+' || key === '=') this.#zoom.by(1);
    else if (key === '-') this.#zoom.by(-1);
    else if (key === '0') this.#zoom.to(1);
    else if (this.#zoom.scale > 1 && pans[key]) this.#zoom.pan(...pans[key]);
    else return false;
    return true;
  }

  #write() {
    const { isSelf, seat } = this.#tile;
    const live = isSelf ? t('share.you') : t('share.by', { name: seat.name });
    put(this.#words, page.room.connected ? live : seat.label); // the last picture of a call that is cut off tells nothing of now
    const { out, fit, real, in: closer, full } = this.#keys;
    put(fit.firstChild, t('share.fit'));
    put(real.firstChild, number(1, { style: 'percent' }));
    fit.setAttribute('aria-pressed', String(this.#zoom.scale === 1));
    for (const [key, name] of [[out, 'share.zoom_out'], [closer, 'share.zoom_in'], [full, 'more.full']]) {
      key.title = t(name);
      key.setAttribute('aria-label', t(name));
    }
  }

  #fullScreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else this.#tile.element.requestFullscreen().catch(() => {});
  }
}
