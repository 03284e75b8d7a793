/** Persistent settings. Browsers may deny access to storage; then only these conveniences are lost. */

export function recall(/** @type {'localStorage' | 'sessionStorage'} */ storage, key) {
  try {
    return window[storage].getItem(key) ?? '';
  } catch {
    return '';
  }
}

/** An empty value removes the key, which may contain the link's token. */
export function remember(/** @type {'localStorage' | 'sessionStorage'} */ storage, key, value) {
  try {
    if (value) window[storage].setItem(key, value);
    else window[storage].removeItem(key);
  } catch {
    // storage denied or full
  }
}

/** Storage keys: the last name of this device; of this tab, with what a reload rejoins, and the ending or the wait that it shows. */
export const NAME_KEY = 'sfu.name';
export const callKey = () => `sfu.call${location.pathname}${location.search}`;
export const tokenKey = () => `sfu.token${location.pathname}${location.search}`;
export const endKey = () => `sfu.end${location.pathname}${location.search}`;
export const ticketKey = (room) => `sfu.ticket${location.pathname}${room}`;
export const waitKey = (room) => `sfu.wait${location.pathname}${room}`;

const CHOICES = 'sfu.choices';
const USUAL = {
  microphoneOff: false,
  cameraOff: false,
  microphone: '', // device ids; '' leaves the choice to the browser
  camera: '',
  speaker: '',
  noiseSuppression: true,
  echoCancellation: true,
  autoGainControl: true,
  blur: false,
  motion: false, // content hint of shared screens: motion instead of detail
  theme: 'auto',
  shortcuts: true,
  sounds: true, // of signs.js
  notify: false, // system notifications of signs.js
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

/** The user's choices on this device; choose() changes and stores them. */
export const choices = { ...USUAL, ...stored() };

export function choose(changed) {
  Object.assign(choices, changed);
  remember('localStorage', CHOICES, JSON.stringify(choices));
}
