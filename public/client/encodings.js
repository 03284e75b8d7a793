/**
 * The simulcast layers of a video track, by its size: what to set in the encodings, and what to tell the server. Browsers send as
 * many layers as the picture is large enough for, the first ones, whatever they are: of a small picture, the first must be all of it.
 */

const RIDS = ['q', 'h', 'f'];
const LARGE = 960 * 540; // pixels from which Chromium sends three layers, and from SMALL on two (libwebrtc, simulcast.cc)
const SMALL = 480 * 270;
const USUAL = 1280 * 720; // what devices.js requests

/** Bitrates of motion by the pixels of a layer, the largest first. */
const BITRATES = [
  [1920 * 1080, 2_500_000],
  [1280 * 720, 1_700_000],
  [960 * 540, 1_000_000],
  [640 * 360, 350_000],
  [480 * 270, 250_000],
  [320 * 180, 150_000],
  [0, 100_000],
];

/** For detail and text (`contentHint`): fewer pictures first, then fewer lines. */
const DETAIL = [
  { scaleResolutionDownBy: 2, maxFramerate: 5, maxBitrate: 250_000 },
  { scaleResolutionDownBy: 1, maxFramerate: 5, maxBitrate: 800_000 },
  { scaleResolutionDownBy: 1, maxFramerate: 30, maxBitrate: 2_500_000 },
];

/** The layers to send of a track, the smallest first: { rid, width, height, encoding }. A size that is not known yet counts as USUAL. */
export function layersOf(track) {
  const { width = 0, height = 0 } = track.getSettings();
  const pixels = width * height || USUAL;
  const count = pixels >= LARGE ? 3 : pixels >= SMALL ? 2 : 1;
  const detail = ['detail', 'text'].includes(track.contentHint);
  return RIDS.slice(0, count).map((rid, index) => {
    const scale = 2 ** (count - 1 - index);
    const encoding = detail ? DETAIL[3 - count + index] : { scaleResolutionDownBy: scale, maxBitrate: bitrateOf(pixels / scale ** 2) };
    const [w, h] = [width, height].map((one) => Math.floor(one / encoding.scaleResolutionDownBy));
    return { rid, width: w, height: h, encoding };
  });
}

const bitrateOf = (pixels) => BITRATES.find(([least]) => pixels >= least)[1];

/** The event `layers` about them; null while their size is not known. */
export const sizesOf = (source, layers) =>
  layers.every(({ width, height }) => width && height)
    ? { source, layers: layers.map(({ rid, width, height, encoding }) => ({ rid, width, height, max_bps: encoding.maxBitrate })) }
    : null;
