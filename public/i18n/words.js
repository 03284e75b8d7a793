/** What the stage and the keys say, by the protocol's codes. No page elements. */

import { has, t } from './texts.js';

export const isProblem = (status) => !['on', 'off', 'starting'].includes(status);

/** Why somebody's video does not come, in the words of the tile. */
export function pausedText(reason) {
  const key = `tile.paused.${reason}`;
  return t(has(key) ? key : 'tile.paused.other');
}

/** What a tile shows, for those who cannot see it. */
export function tileText({ label, muted, picture, paused, speaking, dominant, weak, hand }) {
  const voice = (dominant && t('tile.dominant')) || (speaking && t('tile.speaking'));
  const picked = !picture && (paused?.toLowerCase() ?? t('tile.no_picture'));
  return [label, muted && t('tile.muted'), voice, picked, weak && t('tile.weak'), hand && t('tile.hand', { place: hand })].filter(Boolean).join(', ');
}
