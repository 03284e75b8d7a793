/** Your own picture in a corner of the stage: which corner, and how it is dragged to another. */

import { choices, choose } from './storage.js';

export const CORNERS = ['bottom-end', 'bottom-start', 'top-start', 'top-end'];
const DRAGGED_PX = 6; // less is a press

/** Where the corner tile goes on a stage. Pure. */
export function cornerPlace(corner, width, height) {
  const phone = Math.min(width, height) < 560;
  const tall = phone && height > width;
  const low = height < 200; // a strip above a panel
  const w = low ? Math.round(height * 0.45 * (16 / 9)) : tall ? 104 : phone ? 132 : Math.round(Math.min(264, Math.max(112, width * 0.19)));
  const h = Math.round(tall && !low ? (w * 4) / 3 : (w * 9) / 16);
  const margin = phone ? 10 : 16;
  const [vertical, side] = corner.split('-');
  return { x: side === 'end' ? width - w - margin : margin, y: vertical === 'top' ? margin : height - h - margin, width: w, height: h };
}

export function nextCorner() {
  choose({ corner: CORNERS[(CORNERS.indexOf(choices.corner) + 1) % CORNERS.length] });
}

/** Lets the tile be dragged while it has the class is-corner; `moved()` is told when it was dropped. */
export function makeMovable(tile, box, moved) {
  const { element } = tile;
  let start = null;
  element.addEventListener('pointerdown', (event) => {
    if (!element.matches('.is-corner') || event.target.closest('button') || event.button) return;
    start = event;
    element.setPointerCapture(event.pointerId);
  });
  element.addEventListener('pointermove', (event) => {
    if (!start) return;
    const [dx, dy] = [event.clientX - start.clientX, event.clientY - start.clientY];
    if (!element.matches('.is-dragged') && Math.hypot(dx, dy) < DRAGGED_PX) return;
    element.classList.add('is-dragged');
    element.style.transform = `translate(${dx}px, ${dy}px)`;
  });
  const drop = () => {
    if (element.matches('.is-dragged')) {
      const [own, stage] = [element.getBoundingClientRect(), box.getBoundingClientRect()];
      const right = own.left + own.width / 2 > stage.left + stage.width / 2;
      const end = right !== (document.documentElement.dir === 'rtl');
      const top = own.top + own.height / 2 < stage.top + stage.height / 2;
      choose({ corner: `${top ? 'top' : 'bottom'}-${end ? 'end' : 'start'}` });
      element.style.transform = '';
      element.classList.remove('is-dragged');
      moved(own);
    }
    start = null;
  };
  element.addEventListener('pointerup', drop);
  element.addEventListener('pointercancel', drop);
}
