/** The browser's Back during a call. */

import { $ } from '../base/dom.js';
import { page } from '../app/page.js';
import { panels } from '../panels/panel.js';

/** Closes what is open above the call, then leaves the call: the page stays, and one press rejoins. */
export function back() {
  if (history.state?.call) return;
  if (!page.inCall) return void page.actions.preview({ room: page.room.room, name: page.room.name });
  const open = /** @type {HTMLDialogElement[]} */ ([...document.querySelectorAll('dialog[open]')]).at(-1);
  if (!open && $('panel').hidden) return page.room.stepOut();
  history.forward();
  if (open) open.close();
  else panels.close();
}
