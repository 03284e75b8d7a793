/** Input on the stage: dragging the self-view to another corner, tapping to show a tile's buttons, arrow keys between tiles. */

import { nextCorner } from './corner.js';
import { $ } from '../base/dom.js';
import { page } from '../app/page.js';
import { choices, choose } from '../base/storage.js';

const DRAGGED_PX = 6; // a shorter movement is a click
const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

const box = $('tiles');
const rightToLeft = () => document.documentElement.dir === 'rtl';
let start = null; // { corner, x, y } of the pointerdown on the corner tile

// --- pointer ---

function press(event) {
  const corner = event.target.closest('.is-corner');
  if (!corner || event.target.closest('button') || event.button) return;
  start = { corner, x: event.clientX, y: event.clientY };
  corner.setPointerCapture(event.pointerId);
}

function drag({ clientX, clientY }) {
  if (!start) return;
  const { corner } = start;
  const [dx, dy] = [clientX - start.x, clientY - start.y];
  if (!corner.matches('.is-dragged') && Math.hypot(dx, dy) < DRAGGED_PX) return;
  corner.classList.add('is-dragged');
  corner.style.transform = `translate(${dx}px, ${dy}px)`;
}

function drop() {
  if (start?.corner.matches('.is-dragged')) {
    const { corner } = start;
    const [own, stage] = [corner.getBoundingClientRect(), box.getBoundingClientRect()];
    const right = own.left + own.width / 2 > stage.left + stage.width / 2;
    const top = own.top + own.height / 2 < stage.top + stage.height / 2;
    choose({ corner: `${top ? 'top' : 'bottom'}-${right !== rightToLeft() ? 'end' : 'start'}` });
    corner.style.transform = '';
    corner.classList.remove('is-dragged');
    page.stage.rearrange();
  }
  start = null;
}

/** Without a mouse there is no hover: a tap shows a tile's buttons, another tap hides them. */
function tap({ pointerType, target }) {
  const tapped = target.closest('.tile');
  if (pointerType === 'mouse' || !tapped || target.closest('button')) return;
  const shown = tapped.matches('.is-shown');
  for (const { element } of page.stage.tiles) element.classList.remove('is-shown');
  tapped.classList.toggle('is-shown', !shown);
}

// --- keyboard ---

function key(event) {
  const tile = [...page.stage.tiles].find(({ element }) => element === event.target);
  if (!tile) return;
  if (event.key === 'Enter') page.stage.pin(tile);
  else if (event.shiftKey && STEPS[event.key] && tile.element.matches('.is-corner')) moveCorner(event.key);
  else if (!page.stage.bar?.key(event) && !walk(tile, event.key)) return;
  event.preventDefault();
}

function moveCorner(arrow) {
  const [vertical, side] = choices.corner.split('-');
  const along = { ArrowLeft: rightToLeft() ? 'end' : 'start', ArrowRight: rightToLeft() ? 'start' : 'end' }[arrow];
  const wanted = `${{ ArrowUp: 'top', ArrowDown: 'bottom' }[arrow] ?? vertical}-${along ?? side}`;
  for (let turns = 0; choices.corner !== wanted && turns < 4; turns++) nextCorner();
  page.stage.rearrange();
}

function walk(tile, arrow) {
  const step = STEPS[arrow];
  if (!step) return false;
  const centre = ({ element }) => {
    const { left, top, width, height } = element.getBoundingClientRect();
    return [left + width / 2, top + height / 2];
  };
  const [x, y] = centre(tile);
  let best = { tile: null, far: Infinity };
  for (const one of page.stage.tiles) {
    if (one === tile || one.element.matches('.is-away')) continue;
    const [dx, dy] = [centre(one)[0] - x, centre(one)[1] - y];
    const [along, across] = step[0] ? [dx * step[0], Math.abs(dy)] : [dy * step[1], Math.abs(dx)];
    const far = along + 2 * across;
    if (along > 1 && far < best.far) best = { tile: one, far };
  }
  best.tile?.element.focus();
  return true;
}

box.addEventListener('pointerdown', press);
box.addEventListener('pointermove', drag);
for (const type of ['pointerup', 'pointercancel']) box.addEventListener(type, drop);
box.addEventListener('pointerup', tap);
box.addEventListener('keydown', key);
