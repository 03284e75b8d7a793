/**
 * This device's microphone, camera and screen. No page elements: it asks, holds the tracks and says what went wrong.
 *
 * status(source) is 'on', 'off', 'starting', or why it cannot be on:
 *   'insecure'     the page is neither https nor localhost, so the browser has no devices to give
 *   'none'         there is no such device
 *   'refused'      the person or the browser's settings said no
 *   'busy'         another program holds it
 *   'unsupported'  the browser cannot
 *
 * Events (detail { source }): `change` after any change of status or track; `lost` when a device that was on went away by
 * itself (unplugged); `found` when one that was missing is there now. Nothing here turns a device on unasked.
 */

const CONSTRAINTS = {
  microphone: { audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true } },
  camera: { video: { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30, max: 30 } } },
};
const KINDS = { microphone: 'audioinput', camera: 'videoinput' };
const PROBLEMS = {
  NotAllowedError: 'refused',
  SecurityError: 'refused',
  NotFoundError: 'none',
  NotReadableError: 'busy',
  AbortError: 'busy',
};

export class Devices extends EventTarget {
  /** Everything this device sends besides the screen, for showing oneself and for grouping the tracks. */
  stream = new MediaStream();
  screen = null; // the shared screen's track
  #tracks = { microphone: null, camera: null };
  #wanted = { microphone: false, camera: false };
  #problems = { microphone: null, camera: null };
  #work = Promise.resolve(); // one request at a time: a second prompt over the first confuses

  constructor() {
    super();
    navigator.mediaDevices?.addEventListener?.('devicechange', () => this.#look());
  }

  track(source) {
    return source === 'screen' ? this.screen : this.#tracks[source];
  }

  status(source) {
    if (source === 'screen') return this.screen ? 'on' : 'off';
    if (this.#problems[source]) return this.#problems[source];
    if (!this.#wanted[source]) return 'off';
    return this.#tracks[source] ? 'on' : 'starting';
  }

  /** Turns sources on, with one question to the person for all of them. Never rejects: see status(). */
  start(sources) {
    for (const source of sources) {
      this.#wanted[source] = true;
      this.#problems[source] = null;
      this.#settle(source);
    }
    this.#work = this.#work.then(() => this.#acquire(sources.filter((one) => this.#wanted[one] && !this.#tracks[one])));
    return this.#work;
  }

  /** Turns a source off. The microphone falls silent; the camera is given back, so that its light goes out. */
  stop(source) {
    this.#wanted[source] = false;
    this.#settle(source);
  }

  toggle(source) {
    if (this.#wanted[source] && !this.#problems[source]) this.stop(source);
    else this.start([source]);
  }

  /** Gives everything back. */
  close() {
    for (const source of Object.keys(this.#tracks)) {
      this.#wanted[source] = false;
      this.#drop(source);
    }
    this.unshare();
  }

  get canShare() {
    return Boolean(navigator.mediaDevices?.getDisplayMedia);
  }

  /** Shares a screen or window the person picks; nothing happens when they pick none. */
  async share() {
    const picked = await navigator.mediaDevices.getDisplayMedia({ video: true }).catch(() => null);
    const track = picked?.getVideoTracks()[0];
    if (!track) return;
    this.unshare();
    track.contentHint = 'detail';
    track.onended = () => this.unshare();
    this.screen = track;
    this.#emit('change', 'screen');
  }

  unshare() {
    if (!this.screen) return;
    this.screen.stop();
    this.screen = null;
    this.#emit('change', 'screen');
  }

  #emit(type, source) {
    this.dispatchEvent(new CustomEvent(type, { detail: { source } }));
  }

  /** Brings the track in line with what is wanted, and tells. */
  #settle(source) {
    const wanted = this.#wanted[source];
    if (source === 'camera' && !wanted) this.#drop(source);
    if (this.#tracks[source]) this.#tracks[source].enabled = wanted;
    this.#emit('change', source);
  }

  #drop(source) {
    const track = this.#tracks[source];
    if (!track) return;
    track.stop();
    this.stream.removeTrack(track);
    this.#tracks[source] = null;
  }

  async #acquire(sources) {
    if (!sources.length) return;
    if (!navigator.mediaDevices?.getUserMedia) {
      this.#fail(sources, window.isSecureContext ? 'unsupported' : 'insecure');
      return;
    }
    const present = await presentKinds();
    this.#fail(sources.filter((source) => !present.has(KINDS[source])), 'none');
    const asked = sources.filter((source) => present.has(KINDS[source]));
    if (!asked.length) return;
    try {
      const stream = await navigator.mediaDevices.getUserMedia(Object.assign({}, ...asked.map((one) => CONSTRAINTS[one])));
      for (const source of asked) this.#adopt(source, stream);
    } catch (error) {
      await this.#refused(asked, PROBLEMS[error.name] ?? 'unsupported');
    }
  }

  /** One device can spoil a request for two: whichever may still be had is asked for alone. */
  async #refused(sources, problem) {
    let again = sources.length > 1 ? sources : [];
    if (problem === 'refused') {
      // without a recorded denial of just one, the person said no to both: asking again would pester
      const denied = await deniedSources(again);
      again = denied.length === 1 ? again.filter((source) => !denied.includes(source)) : [];
    }
    this.#fail(sources.filter((source) => !again.includes(source)), problem);
    for (const source of again) await this.#acquire([source]);
  }

  #adopt(source, stream) {
    const track = (source === 'camera' ? stream.getVideoTracks() : stream.getAudioTracks())[0];
    track.onended = () => {
      this.#drop(source);
      this.#problems[source] = 'none';
      this.#emit('change', source);
      this.#emit('lost', source);
    };
    this.#tracks[source] = track;
    this.stream.addTrack(track);
    this.#settle(source); // it may have been turned off while the browser asked
  }

  #fail(sources, problem) {
    for (const source of sources) {
      this.#problems[source] = problem;
      this.#emit('change', source);
    }
  }

  async #look() {
    const present = await presentKinds();
    for (const source of Object.keys(KINDS)) {
      if (this.#problems[source] !== 'none' || !present.has(KINDS[source])) continue;
      this.#problems[source] = null;
      this.#wanted[source] = false;
      this.#emit('change', source);
      this.#emit('found', source);
    }
  }
}

async function presentKinds() {
  try {
    return new Set((await navigator.mediaDevices.enumerateDevices()).map((device) => device.kind));
  } catch {
    return new Set(Object.values(KINDS)); // the request itself will tell
  }
}

async function deniedSources(sources) {
  const states = await Promise.all(
    sources.map(async (name) => {
      try {
        return (await navigator.permissions.query({ name })).state;
      } catch {
        return 'unknown'; // not every browser knows these permissions by name
      }
    }),
  );
  return sources.filter((_, index) => states[index] === 'denied');
}
