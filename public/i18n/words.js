/** Texts of tiles, by the protocol's codes. No page elements. */

import { has, t } from './texts.js';

export const isProblem = (status) => !['on', 'off', 'starting'].includes(status);

/** The text for a reason of the `paused` event. */
export function pausedText(reason) {
  const key = `tile.paused.${reason}`;
  return t(has(key) ? key : 'tile.paused.other');
}

/** The accessible name of a tile. */
export function tileText({ label, muted, picture, paused, speaking, dominant, weak, hand }) {
  const voice = (dominant && t('tile.dominant')) || (speaking && t('tile.speaking'));
  const picked = !picture && (paused?.toLowerCase() ?? t('tile.no_picture'));
  return [label, muted && t('tile.muted'), voice, picked, weak && t('tile.weak'), hand && t('tile.hand', { place: hand })].filter(Boolean).join(', ');
}
