/** What the page remembers. Browsers may refuse storage; the page only forgets a convenience then. */

export function recall(/** @type {'localStorage' | 'sessionStorage'} */ storage, key) {
  try {
    return window[storage].getItem(key) ?? '';
  } catch {
    return '';
  }
}

export function remember(/** @type {'localStorage' | 'sessionStorage'} */ storage, key, value) {
  try {
    window[storage].setItem(key, value);
  } catch {
    // see above
  }
}

/** The name last used on this device, and for this tab the name and the token of its call: loading it again goes straight back. */
export const NAME_KEY = 'sfu.name';
export const AGAIN_KEY = 'sfu.again'; // when the page last loaded itself again
export const callKey = () => `sfu.call${location.search}`;
export const tokenKey = () => `sfu.token${location.search}`;

const CHOICES = 'sfu.choices';
const USUAL = {
  microphoneOff: false,
  cameraOff: false,
  microphone: '', // device ids; '' is the browser's choice
  camera: '',
  speaker: '',
  noiseSuppression: true,
  echoCancellation: true,
  autoGainControl: true,
  blur: false,
  motion: false, // a shared screen is a film rather than text
  theme: 'auto',
  shortcuts: true,
  corner: 'bottom-end',
};

function stored() {
  try {
    const read = JSON.parse(recall('localStorage', CHOICES));
    return Object.fromEntries(Object.keys(USUAL).filter((name) => typeof read[name] === typeof USUAL[name]).map((name) => [name, read[name]]));
  } catch {
    return {};
  }
}

/** What the person chose on this device; choose() keeps it. */
export const choices = { ...USUAL, ...stored() };

export function choose(changed) {
  Object.assign(choices, changed);
  remember('localStorage', CHOICES, JSON.stringify(choices));
}
