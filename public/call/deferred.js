/**
 * Everything that a call does not need in its first seconds: panels, menus, hints and messages about interruptions. call.js
 * loads it once the call is established, or earlier if needed; so it is available when the server is not.
 */

import { missing, styled } from '../base/dom.js';
import { page } from '../app/page.js';
import { PANELS } from '../panels/list.js';
import { panels } from '../panels/panel.js';
import './wake-lock.js';
import '../panels/chat.js'; // counts unread messages from the start
import './idle.js';
import './keyboard.js';
import '../panels/moderate.js';
import '../stage/tile-keys.js';
import '../stage/viewers.js';
import './arrivals.js';
import './notices.js';
import './push-to-talk.js';
import './tabs.js';
import './interruptions.js';
import './voice.js';

export { back } from './back.js';
export { deviceMenu, moreMenu, shortcuts, tileMenu } from './menus.js';
export { waitAgain } from './interruptions.js';
export { copyLink, explain, retry, soundHeld, tellDevices } from './notices.js';
export { panel, panels } from '../panels/panel.js';
export { reactions } from './reactions.js';
export { ShareBar } from '../stage/sharebar.js';
export const settings = async () => (await import('./settings.js').catch(missing))?.openSettings();
export const invite = async () => (await import('./invite.js').catch(missing))?.openInvite();

for (const [id, row] of Object.entries(PANELS)) panels.add(id, row);

/** Adds the remaining icons to those in index.html. */
async function addIcons() {
  const answer = await fetch('icons.svg');
  const read = new DOMParser().parseFromString(await answer.text(), 'image/svg+xml');
  document.getElementById('icons').append(...read.documentElement.children);
}

await Promise.all([addIcons(), styled('before.css'), styled('later.css')]);
page.complete();
