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
 * Events (detail { source } and what is named): `change` after any change of status or track; `released` when a track is about to
 * be replaced, for whoever holds a copy; `list` when the devices to choose
 * from changed; `lost` when a device that was on went away and there is no other; `now` { label } when another took its
 * place; `found` when one that was missing is there now; `plugged` { id, label } when one more is there; `taken` when the
 * system silenced the microphone (a phone call), `returned` when it gave it back. Nothing here turns a device on unasked.
 */

import { choices, choose } from '../base/storage.js';

const KINDS = { microphone: 'audioinput', camera: 'videoinput', speaker: 'audiooutput' };
const INPUTS = ['microphone', 'camera'];
/** Chromium's second names for a device in the list. Of the microphone in use it may tell no other name than `default`. */
const ALIASES = { audioinput: ['communications'], audiooutput: ['default', 'communications'] };
const PROBLEMS = {
  NotAllowedError: 'refused',
  SecurityError: 'refused',
  NotFoundError: 'none',
  OverconstrainedError: 'none',
  NotReadableError: 'busy',
  AbortError: 'busy',
};

/** The chosen device if it is there; browsers may take another one for an ideal one. */
function constraintsOf(source, present) {
  const id = choices[source];
  const chosen = id ? { deviceId: present.has(id) ? { exact: id } : { ideal: id } } : {};
  const { noiseSuppression, echoCancellation, autoGainControl } = choices;
  if (source === 'microphone') return { audio: { ...chosen, noiseSuppression, echoCancellation, autoGainControl } };
  return { video: { ...chosen, width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30, max: 30 } } };
}

export class Devices extends EventTarget {
  /** Everything this device sends besides the screen, for showing oneself and for grouping the tracks. */
  stream = new MediaStream();
  /**
   * What can be chosen, by source; labels are empty until the person allowed a device.
   * @type {Record<string, { id: string, label: string }[]>}
   */
  choices = { microphone: [], camera: [], speaker: [] };
  #screen = { video: null, audio: null };
  #tracks = { microphone: null, camera: null };
  #wanted = { microphone: false, camera: false };
  permitted = true; // to ask for devices
  #lent = ''; // the source that is on for a moment only
  #resting = INPUTS.filter((source) => !choices[`${source}Off`]); // what wake() turns on
  #problems = { microphone: null, camera: null };
  #asking = []; // sources
  #work = Promise.resolve(); // one request at a time: a second prompt over the first confuses

  constructor() {
    super();
    navigator.mediaDevices?.addEventListener?.('devicechange', () => this.#look());
  }

  /** Sources: microphone, camera, screen, screen-audio. */
  track(source) {
    if (source === 'screen') return this.#screen.video;
    return source === 'screen-audio' ? this.#screen.audio : this.#tracks[source];
  }

  status(source) {
    if (source === 'screen') return this.#screen.video ? 'on' : 'off';
    if (this.#problems[source]) return this.#problems[source];
    if (!this.#wanted[source]) return 'off';
    return this.#tracks[source] ? 'on' : 'starting';
  }

  /** The sources that the browser asks the person about right now, or may. */
  get asking() {
    return this.#asking;
  }

  /** Turns sources on, with one question to the person for all of them. Never rejects: see status(). */
  start(sources) {
    if (!this.permitted) return this.#work;
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

  /** Turns a source on that is off, until takeBack(): nothing keeps that in mind, and nothing but takeBack() or stop() ends it. */
  lend(source) {
    if (this.status(source) !== 'off') return;
    this.#lent = source;
    this.start([source]);
  }

  /** Turns off what was lent, whoever has turned it off or on meanwhile. */
  takeBack() {
    const source = this.#lent;
    this.#lent = '';
    if (source) this.stop(source);
  }

  toggle(source) {
    if (this.#wanted[source] && !this.#problems[source]) this.stop(source);
    else this.start([source]);
  }

  /** Uses another device from now on, or the same one anew where its switches changed. */
  async pick(source, id = choices[source]) {
    choose({ [source]: id });
    if (source === 'speaker' || !this.#tracks[source]) return this.#emit('change', source);
    this.#work = this.#work.then(() => {
      this.#drop(source); // first: many a device cannot be opened twice, nor with other switches, nor two cameras of a phone
      this.#emit('released', source);
      return this.#acquire([source]);
    });
    await this.#work;
  }

  get canBlur() {
    return this.#tracks.camera?.getCapabilities?.().backgroundBlur?.includes(true) ?? false;
  }

  /** Blurs what is behind the person, where the browser can. */
  blur(on) {
    choose({ blur: on });
    if (this.canBlur) this.#tracks.camera.applyConstraints({ backgroundBlur: on }).catch(() => {}); // the picture goes on as it was
  }

  /** Turns on what was on before rest(), or what the person left on the last time. */
  wake() {
    return this.permitted ? this.start(this.#resting.splice(0)) : this.#work;
  }

  /** Gives everything back, and keeps in mind what was on. */
  rest() {
    this.takeBack();
    if (!this.#resting.length) this.#resting = INPUTS.filter((source) => this.status(source) === 'on');
    for (const source of INPUTS) {
      this.#wanted[source] = false;
      this.#drop(source);
    }
    this.unshare();
  }

  /** Gives everything back, and asks for nothing until it is `permitted` again. */
  forbid() {
    this.rest();
    this.permitted = false;
  }

  get resting() {
    return this.#resting.length > 0;
  }

  get canShare() {
    return Boolean(navigator.mediaDevices?.getDisplayMedia);
  }

  /** Shares a screen or window the person picks, with its sound where it has one; nothing happens when they pick none. */
  async share() {
    const picked = await navigator.mediaDevices.getDisplayMedia({ video: { frameRate: { max: 30 } }, audio: true }).catch(() => null);
    const video = picked?.getVideoTracks()[0];
    if (!video) return;
    this.unshare();
    video.contentHint = choices.motion ? 'motion' : 'detail';
    video.onended = () => this.unshare();
    this.#screen = { video, audio: picked.getAudioTracks()[0] ?? null };
    this.#emit('change', 'screen');
  }

  unshare() {
    if (!this.#screen.video) return;
    this.#screen.video.stop();
    this.#screen.audio?.stop();
    this.#screen = { video: null, audio: null };
    this.#emit('change', 'screen');
  }

  #emit(type, source, more = {}) {
    this.dispatchEvent(new CustomEvent(type, { detail: { source, ...more } }));
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
    track.onended = track.onmute = track.onunmute = null;
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
    const present = await whatIsThere();
    this.#fail(sources.filter((source) => !present.has(KINDS[source])), 'none');
    const asked = sources.filter((source) => present.has(KINDS[source]));
    if (!asked.length) return;
    const states = await permissionsOf(asked);
    this.#ask(asked.filter((source) => !['granted', 'denied'].includes(states.get(source))));
    try {
      const stream = await navigator.mediaDevices.getUserMedia(Object.assign({}, ...asked.map((source) => constraintsOf(source, present))));
      this.#ask([]);
      for (const source of asked) this.#adopt(source, stream);
    } catch (error) {
      this.#ask([]);
      await this.#refused(asked, PROBLEMS[error.name] ?? 'unsupported');
    }
    await this.#look(); // labels are known from now on
  }

  #ask(sources) {
    this.#asking = sources;
    for (const source of sources) this.#emit('change', source);
  }

  /** One device can spoil a request for two: whichever may still be had is asked for alone. */
  async #refused(sources, problem) {
    let again = sources.length > 1 ? sources : [];
    if (problem === 'refused') {
      // without a recorded denial of just one, the person said no to both: asking again would pester
      const states = await permissionsOf(again);
      const denied = again.filter((source) => states.get(source) === 'denied');
      again = denied.length === 1 ? again.filter((source) => !denied.includes(source)) : [];
    }
    this.#fail(sources.filter((source) => !again.includes(source)), problem);
    for (const source of again) await this.#acquire([source]);
  }

  #adopt(source, stream) {
    const track = (source === 'camera' ? stream.getVideoTracks() : stream.getAudioTracks())[0];
    track.onended = () => this.#ended(source);
    if (source === 'microphone') {
      track.contentHint = 'speech';
      track.onmute = () => this.#emit('taken', source);
      track.onunmute = () => this.#emit('returned', source);
    }
    this.#tracks[source] = track;
    this.stream.addTrack(track);
    if (source === 'camera' && choices.blur) this.blur(true);
    this.#settle(source); // it may have been turned off while the browser asked
  }

  /** The device went away: another of its kind takes its place, if there is one and the source was on. */
  async #ended(source) {
    this.#drop(source);
    if (!this.#wanted[source]) return this.#emit('change', source);
    this.#work = this.#work.then(() => this.#acquire([source]));
    await this.#work;
    const track = this.#tracks[source];
    if (track) this.#emit('now', source, { label: track.label });
    else this.#emit('lost', source);
  }

  #fail(sources, problem) {
    for (const source of sources) {
      this.#problems[source] = problem;
      this.#emit('change', source);
    }
  }

  async #look() {
    const found = await navigator.mediaDevices.enumerateDevices().catch(() => []);
    const before = this.choices;
    const of = (kind) => found.filter((one) => one.kind === kind && one.deviceId && !ALIASES[kind]?.includes(one.deviceId));
    this.choices = Object.fromEntries(
      Object.entries(KINDS).map(([source, kind]) => [source, of(kind).map(({ deviceId: id, label }) => ({ id, label }))]),
    );
    const differs = JSON.stringify(before) !== JSON.stringify(this.choices);
    if (differs) this.dispatchEvent(new Event('list'));
    for (const source of INPUTS) {
      const more = this.choices[source].filter(({ id }) => !before[source].some((one) => one.id === id));
      if (this.#problems[source] === 'none' && this.choices[source].length) {
        this.#problems[source] = null;
        this.#wanted[source] = false;
        this.#emit('change', source);
        this.#emit('found', source);
      } else if (before[source].length && more.length && this.#tracks[source]) this.#emit('plugged', source, more[0]);
    }
  }
}

/** The kinds of devices, and the ids of those that the browser tells. */
async function whatIsThere() {
  try {
    return new Set((await navigator.mediaDevices.enumerateDevices()).flatMap(({ kind, deviceId }) => [kind, deviceId]));
  } catch {
    return new Set(Object.values(KINDS)); // the request itself will tell
  }
}

/** What the browser remembers the person to have said: source → 'granted', 'denied', 'prompt', or 'unknown'. */
async function permissionsOf(sources) {
  const state = async (name) => {
    try {
      return [name, (await navigator.permissions.query({ name })).state];
    } catch {
      return [name, 'unknown']; // not every browser knows these permissions by name
    }
  };
  return new Map(await Promise.all(sources.map(state)));
}
