/** QR codes as SVG elements (ISO/IEC 18004), dark on light in every theme, as scanners expect. */

import { correction, generate } from './lean-qr.js';

const SVG = 'http://www.w3.org/2000/svg';
const QUIET = 4; // quiet zone in modules, section 6.3.8

/** @type {(text: string, options: object) => { size: number, get(x: number, y: number): boolean }} */
const encode = generate; // packed code has no types

/** Encodes a text; `label` is the accessible name. Throws if the text is too long for a code (about 2,300 bytes). */
export function qrCode(text, label) {
  const code = encode(text, { minCorrectionLevel: correction.M });
  const size = code.size + 2 * QUIET;
  let dark = '';
  for (let y = 0; y < code.size; y++) {
    for (let x = 0; x < code.size; x++) {
      let run = 0;
      while (code.get(x + run, y)) run++;
      if (run) dark += `M${x + QUIET} ${y + QUIET}h${run}v1h-${run}z`;
      x += run;
    }
  }
  const svg = make('svg', { class: 'qr', viewBox: `0 0 ${size} ${size}`, 'shape-rendering': 'crispEdges', role: 'img', 'aria-label': label });
  svg.append(make('rect', { width: size, height: size, fill: '#fff' }), make('path', { d: dark, fill: '#111513' }));
  return svg;
}

function make(name, attributes) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}
