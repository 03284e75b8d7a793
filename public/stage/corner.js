/** The self-view in a corner of the stage: which corner, and its position. */

import { choices, choose } from '../base/storage.js';

export const CORNERS = ['bottom-end', 'bottom-start', 'top-start', 'top-end'];

/** The place { x, y, width, height } of the corner tile on a stage, in CSS pixels. Pure. */
export function cornerPlace(corner, width, height) {
  const phone = Math.min(width, height) < 560;
  const tall = phone && height > width;
  const low = height < 200; // the stage is a strip above a panel
  const w = low ? Math.round(height * 0.45 * (16 / 9)) : tall ? Math.min(104, Math.round(height * 0.26)) : phone ? 132 : Math.round(Math.min(264, Math.max(112, width * 0.19)));
  const h = Math.round(tall && !low ? (w * 4) / 3 : (w * 9) / 16);
  const margin = phone ? 10 : 16;
  const [vertical, side] = corner.split('-');
  return { x: side === 'end' ? width - w - margin : margin, y: vertical === 'top' ? margin : height - h - margin, width: w, height: h };
}

export function nextCorner() {
  choose({ corner: CORNERS[(CORNERS.indexOf(choices.corner) + 1) % CORNERS.length] });
}
