/**
 * The layout of tiles, and who gets one. Pure functions: sizes in, places { x, y, width, height } out, in CSS pixels from the
 * stage's top and inline start.
 */

const IDEAL = 16 / 9; // aspect ratio of cameras, and the widest of a tile
const SMALLEST = { width: 120, height: 96 }; // in smaller tiles, faces cannot be read
const BAR_PX = 52;
const MORE_PX = 44;

/**
 * Columns and tile size of the grid of n equal tiles with the largest tiles in width × height. Tries every column count; the
 * aspect ratio may vary between 16:9 and 4:3 (3:4 in a tall stage) to use up empty bands. Each empty seat counts against a
 * grid, at most 2 %, so that tiles do not jump between near-equal grids while the window is resized.
 */
export function bestGrid(n, width, height, gap) {
  const squarest = width >= height ? 4 / 3 : 3 / 4;
  let best = { columns: 1, rows: n, width: 0, height: 0, worth: -1 };
  for (let columns = 1; columns <= n; columns++) {
    const rows = Math.ceil(n / columns);
    if (columns * (rows - 1) >= n) continue; // the last row would be empty
    const [across, down] = [(width - gap * (columns - 1)) / columns, (height - gap * (rows - 1)) / rows];
    const w = Math.max(0, Math.floor(Math.min(across, down * IDEAL)));
    const h = Math.max(0, Math.floor(Math.min(down, w / squarest)));
    const worth = w * h * (1 - (0.02 * (columns * rows - n)) / n);
    if (worth > best.worth) best = { columns, rows, width: w, height: h, worth };
  }
  return best;
}

/** How many of n tiles fit with each at least the given size; at least one if n is not 0. */
export function seatsThatFit(n, width, height, gap, { width: least, height: lowest } = SMALLEST) {
  for (let seats = n; seats > 1; seats--) {
    const found = bestGrid(seats, width, height, gap);
    if (found.width >= least && found.height >= lowest) return seats;
  }
  return Math.min(n, 1);
}

/** The places of n equal tiles, row by row, centred in an area; a shorter last row is centred too. */
export function gridPlaces(n, area, gap) {
  if (!n) return [];
  const { columns, rows, width, height } = bestGrid(n, area.width, area.height, gap);
  const top = area.y + (area.height - rows * height - (rows - 1) * gap) / 2;
  return Array.from({ length: n }, (_, index) => {
    const [row, column] = [Math.floor(index / columns), index % columns];
    const inRow = row === rows - 1 ? n - columns * (rows - 1) : columns;
    const start = area.x + (area.width - inRow * width - (inRow - 1) * gap) / 2;
    return { x: Math.round(start + column * (width + gap)), y: Math.round(top + row * (height + gap)), width, height };
  });
}

/**
 * One large tile and a strip of n small ones: { main, bar, strip, more }. The strip is at the inline end, or below in a tall
 * stage. `strip` lists the places of the small tiles that fit; `more` is the place of the button for the rest, null if all fit.
 * `bar` is the place of the bar under a shared screen, or null.
 */
export function splitPlaces(n, width, height, gap, shared) {
  const tall = height > width;
  const bar = shared ? BAR_PX : 0;
  const strip = tall ? below(n, width, height, gap, shared) : beside(n, width, height, gap);
  const main = tall ? { x: 0, y: 0, width, height: strip.from - gap - bar } : { x: 0, y: 0, width: strip.from - gap, height: height - bar };
  if (!n) Object.assign(main, { width, height: height - bar });
  return { main, bar: shared ? { ...main, y: main.height, height: bar } : null, strip: strip.places, more: strip.more };
}

function beside(n, width, height, gap) {
  const w = Math.min(height < 480 ? 132 : 208, Math.floor(width / 3));
  const h = Math.round((w * 9) / 16);
  const all = Math.floor((height + gap) / (h + gap));
  const shown = n <= all ? n : Math.max(0, Math.floor((height - MORE_PX) / (h + gap)));
  const places = Array.from({ length: shown }, (_, index) => ({ x: width - w, y: index * (h + gap), width: w, height: h }));
  const more = shown < n ? { x: width - w, y: shown * (h + gap), width: w, height: MORE_PX } : null;
  return { from: width - w, places, more };
}

function below(n, width, height, gap, shared) {
  const from = shared ? Math.round(Math.min(width * 0.625 + BAR_PX, height * 0.6)) + gap : height - Math.round(Math.min(150, (width - 2 * gap) / 3) * 0.75);
  const area = { x: 0, y: from, width, height: height - from };
  const fit = seatsThatFit(n, area.width, area.height, gap, { width: 96, height: 64 });
  const places = gridPlaces(fit, area, gap);
  return { from, places: fit < n ? places.slice(0, -1) : places, more: fit < n ? places.at(-1) : null };
}

/**
 * Chooses which of the keys get one of `places` places. Keys in `before` keep theirs, in that order; then those who spoke most
 * recently (`spoke`: key → time), then in order of `keys`. `speaker` always gets a place, if need be that of the key that has
 * been silent longest.
 */
export function choose(keys, places, { before = [], speaker = null, spoke = new Map() } = {}) {
  if (keys.length <= places) return [...keys];
  const time = (key) => spoke.get(key) ?? 0;
  const kept = before.filter((key) => keys.includes(key)).slice(0, places);
  const waiting = keys.filter((key) => !kept.includes(key)).sort((a, b) => time(b) - time(a));
  const shown = [...kept, ...waiting.slice(0, places - kept.length)];
  if (places && keys.includes(speaker) && !shown.includes(speaker)) {
    const silent = shown.reduce((one, key) => (time(key) < time(one) ? key : one));
    shown[shown.indexOf(silent)] = speaker;
  }
  return shown;
}
