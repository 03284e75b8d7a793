/**
 * The side panel: one panel at a time beside the stage. A panel is created when first opened and then kept, with its draft and
 * scroll position. Escape closes it and returns the focus to its button.
 *
 * The panel() function of its module returns { body, foot, shown(), hidden(), focus }: the nodes of body and footer, callbacks
 * for opening and closing, and the node to focus. Only `body` is required.
 */

import { $, button, element, missing } from '../base/dom.js';
import { isDrawn } from '../ui/here.js';
import { page } from '../app/page.js';
import { t, texts } from '../i18n/texts.js';

/** The panel’s button in the bar, or null. */
const keyOf = ({ id }) => document.getElementById(`${id}-button`);

class Panels {
  open = null; // id
  #all = new Map(); // id → { id, title, load, made, frame }

  constructor() {
    $('panel').addEventListener('keydown', (event) => {
      if (event.key !== 'Escape' || event.defaultPrevented) return;
      event.preventDefault();
      this.close();
    });
    texts.addEventListener('change', () => this.#retitle());
  }

  /** Registers a panel: `id` and row of a panel in list.js. */
  add(id, { title, load }) {
    this.#all.set(id, { id, title, load, made: null, frame: null });
  }

  toggle(id) {
    return this.open === id ? this.close() : this.show(id);
  }

  async show(id) {
    const panel = this.#all.get(id);
    if (this.open === id) return;
    this.#hide();
    this.open = id;
    panel.made ??= (await panel.load().catch(missing))?.panel();
    if (!panel.made && this.open === id) this.open = null; // the module could not be loaded
    if (this.open !== id) return; // another panel was opened meanwhile
    panel.frame ??= this.#frame(panel);
    panel.frame.hidden = false;
    $('panel').hidden = false;
    $('panel').setAttribute('aria-labelledby', panel.frame.querySelector('h2').id);
    this.#mark(panel, true);
    panel.made.shown?.();
    (panel.made.focus ?? panel.frame.querySelector('.panel__head button')).focus();
  }

  close({ focus = true } = {}) {
    const panel = this.#all.get(this.open);
    if (!panel) return;
    this.#hide();
    $('panel').hidden = true;
    if (focus) [keyOf(panel), $('more-button')].find((one) => one && isDrawn(one))?.focus();
  }

  #hide() {
    const panel = this.#all.get(this.open);
    this.open = null;
    if (!panel?.frame) return;
    panel.frame.hidden = true;
    this.#mark(panel, false);
    panel.made.hidden?.();
  }

  #mark(panel, open) {
    const key = keyOf(panel);
    $('call-view').classList.toggle('has-panel', open);
    key?.setAttribute('aria-expanded', String(open));
    key?.classList.toggle('is-on', open);
  }

  #frame({ title, made: { body, foot } }) {
    const frame = element('div', 'panel__frame');
    const head = element('header', 'panel__head');
    const heading = element('h2', '', t(title));
    heading.dataset.t = title;
    heading.id = `panel-${title.replace('.', '-')}`;
    const close = button('icon-btn', { title: t('close'), name: 'close' }, () => this.close());
    close.dataset.tAriaLabel = close.dataset.tTitle = 'close';
    head.append(heading, close);
    const inside = element('div', 'panel__body');
    inside.tabIndex = 0; // so that it can be scrolled by keyboard
    inside.setAttribute('role', 'group');
    inside.setAttribute('aria-labelledby', heading.id);
    inside.append(...[body].flat());
    frame.append(head, inside);
    if (foot) {
      const row = element('footer', 'panel__foot');
      row.append(...[foot].flat());
      frame.append(row);
    }
    $('panel').append(frame);
    return frame;
  }

  #retitle() {
    for (const { frame, title } of this.#all.values()) if (frame) frame.querySelector('h2').textContent = t(title);
  }
}

export const panels = new Panels();
export const panel = (id) => panels.toggle(id);
page.on('view', ({ name }) => name !== 'call' && panels.close({ focus: false }));
