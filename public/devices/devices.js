/**
 * The local microphone, camera and screen: requests devices, owns their tracks and reports problems. No page elements.
 *
 * status(source) is 'on', 'off', 'starting', or the reason why it cannot be on:
 *   'insecure'     the page is neither https nor localhost
 *   'barred'       a permissions policy keeps this page from it
 *   'none'         there is no such device
 *   'refused'      the user or the browser denied permission
 *   'dismissed'    the permission prompt was closed without an answer
 *   'system'       the operating system denies it to the browser
 *   'busy'         it does not start; often another program uses it
 *   'unsupported'  the browser does not support it
 *
 * Events, whose detail is { source } and the fields named here:
 *   change                status or track changed
 *   released              the track is about to be replaced; holders of a clone must stop it
 *   list                  the available devices changed (no detail)
 *   lost                  a device that was on is gone, and there is no other
 *   now { label }         another device replaced one that is gone or no longer the default
 *   found                 a device is available where there was none
 *   plugged { id, label } one more device is available
 *   taken, returned       the system muted the microphone (a phone call), or unmuted it
 * This module never turns a device on unasked.
 */

import { newStream } from '../base/dom.js';
import { choices, choose } from '../base/storage.js';

const KINDS = { microphone: 'audioinput', camera: 'videoinput', speaker: 'audiooutput' };
const INPUTS = ['microphone', 'camera'];
const DEFAULT = 'default';
/** Chromium's aliases of listed devices. The default input stays: it follows the system's choice. */
const ALIASES = { audioinput: ['communications'], audiooutput: [DEFAULT, 'communications'] };
const PROBLEMS = {
  NotAllowedError: 'refused',
  SecurityError: 'refused',
  NotFoundError: 'none',
  OverconstrainedError: 'none',
  NotReadableError: 'busy',
  AbortError: 'busy',
};
/** What Chromium's messages say about a NotAllowedError besides a refusal. */
const DENIALS = { dismissed: 'dismissed', 'by system': 'system' };

const ANSWERS = ['refused', 'dismissed', 'system']; // to a permission prompt

function problemOf({ name, message }) {
  const denial = name === 'NotAllowedError' && Object.keys(DENIALS).find((says) => message.includes(says));
  return denial ? DENIALS[denial] : (PROBLEMS[name] ?? 'unsupported');
}

/** Whether a permissions policy denies the source. Only Chromium tells; elsewhere the request is refused. */
const isBarred = (source) => document.featurePolicy?.allowsFeature(source) === false;

/** Constraints for the chosen device, or the camera that faces the user or the environment: exact if it is present, since for `ideal` browsers may take another one. */
function constraintsOf(source, present, facing) {
  const id = choices[source];
  const chosen = id ? { deviceId: present.has(id) ? { exact: id } : { ideal: id } } : {};
  const { noiseSuppression, echoCancellation, autoGainControl } = choices;
  if (source === 'microphone') return { audio: { ...chosen, noiseSuppression, echoCancellation, autoGainControl } };
  return { video: { ...(facing ? { facingMode: facing } : chosen), width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30, max: 30 } } };
}

export class Devices extends EventTarget {
  /** The camera and microphone tracks, for the self-view and as the tracks' common MediaStream. */
  stream = newStream();
  /**
   * Available devices by source; labels are empty until the user has allowed one.
   * @type {Record<string, { id: string, label: string }[]>}
   */
  choices = { microphone: [], camera: [], speaker: [] };
  #screen = { video: null, audio: null };
  #tracks = { microphone: null, camera: null };
  #wanted = { microphone: false, camera: false };
  permitted = true; // whether devices may be requested
  #lent = ''; // the source turned on by lend()
  #resting = INPUTS.filter((source) => !choices[`${source}Off`]); // what wake() turns on
  #problems = { microphone: null, camera: null };
  #asking = []; // sources
  #work = Promise.resolve(); // serializes requests: two permission prompts at once confuse

  constructor() {
    super();
    navigator.mediaDevices?.addEventListener?.('devicechange', async () => this.#follow(await this.#look()));
  }

  /** The track of a source: microphone, camera, screen or screen-audio; null if there is none. */
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

  /** The sources for which a permission prompt is open, or may be. */
  get asking() {
    return this.#asking;
  }

  /** Turns sources on, with one permission prompt for all of them, not before `first` has settled. Never rejects: status() tells the result. */
  start(sources, first = null) {
    if (!this.permitted) return this.#work;
    for (const source of sources) {
      this.#wanted[source] = true;
      this.#problems[source] = null;
      this.#settle(source);
    }
    this.#work = this.#work.then(() => first).then(() => this.#acquire(sources.filter((one) => this.#wanted[one] && !this.#tracks[one])));
    return this.#work;
  }

  /** Turns a source off. The microphone's track is disabled; the camera is released, so that its light goes out. */
  stop(source) {
    this.#wanted[source] = false;
    this.#settle(source);
  }

  /** Turns on a source that is off until takeBack() or stop(), without storing that as the user's choice. */
  lend(source) {
    if (this.status(source) !== 'off') return;
    this.#lent = source;
    this.start([source]);
  }

  /** Turns off the source turned on by lend(), even if it was toggled meanwhile. */
  takeBack() {
    const source = this.#lent;
    this.#lent = '';
    if (source) this.stop(source);
  }

  toggle(source) {
    if (this.#wanted[source] && !this.#problems[source]) this.stop(source);
    else this.start([source]);
  }

  /** Switches to another device, or reopens the current one with changed constraints. If it could not be started, tries again. */
  async pick(source, id = choices[source]) {
    choose({ [source]: id });
    if (this.#problems[source]) return this.start([source]);
    if (source === 'speaker' || !this.#tracks[source]) return this.#emit('change', source);
    await this.reopen(source);
  }

  /** Opens the chosen device again; with `facing`, the camera that faces the user or the environment. */
  reopen(source, facing = '') {
    this.#work = this.#work.then(() => {
      this.#drop(source); // first: many devices cannot be opened twice or with other constraints, nor a phone's two cameras at once
      this.#emit('released', source);
      return this.#acquire([source], facing);
    });
    return this.#work;
  }

  /** A track of Chromium's `default` microphone stays on its device when the system default changes: opens the new one. */
  async #follow(found) {
    const { deviceId, groupId } = this.#tracks.microphone?.getSettings() ?? {};
    const usual = found.find((one) => one.kind === KINDS.microphone && one.deviceId === DEFAULT);
    if (deviceId !== DEFAULT || !usual?.groupId || !groupId || usual.groupId === groupId) return;
    await this.reopen('microphone');
    this.#tellNow('microphone');
  }

  /** Chromium labels its default microphone "Default - " and the label of the device, which is told alone. */
  #tellNow(source) {
    const label = this.#tracks[source]?.label;
    if (!label) return;
    const own = this.choices[source].find((one) => one.id !== DEFAULT && label.endsWith(one.label));
    this.#emit('now', source, { label: own?.label || label });
  }

  /** The id of the output device to play on: the chosen one while it is present, else '' for the system default. */
  get speaker() {
    return this.choices.speaker.some(({ id }) => id === choices.speaker) ? choices.speaker : '';
  }

  get canBlur() {
    return this.#tracks.camera?.getCapabilities?.().backgroundBlur?.includes(true) ?? false;
  }

  /** Blurs the camera's background if the browser supports it. */
  blur(on) {
    choose({ blur: on });
    if (this.canBlur) this.#tracks.camera.applyConstraints({ backgroundBlur: on }).catch(() => {}); // on failure the video stays as it was
  }

  /** Turns on the sources that were on before rest(), or in the last call, not before `first` has settled. */
  wake(first = null) {
    return this.permitted ? this.start(this.#resting.splice(0), first) : this.#work;
  }

  /** Releases all devices, and remembers for wake() which were on. */
  rest() {
    this.takeBack();
    if (!this.#resting.length) this.#resting = INPUTS.filter((source) => ['on', 'starting'].includes(this.status(source)));
    for (const source of INPUTS) {
      this.#wanted[source] = false;
      this.#drop(source);
    }
    this.unshare();
  }

  /** Releases all devices and requests none until `permitted` is set again. */
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

  /** Shares the screen or window that the user picks, with its sound if available; does nothing if the user cancels. */
  async share() {
    if (!this.canShare) return;
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

  /** Brings the track in line with the wanted state, and emits `change`. */
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

  async #acquire(sources, facing = '') {
    if (!sources.length) return;
    if (!navigator.mediaDevices?.getUserMedia) {
      this.#fail(sources, window.isSecureContext ? 'unsupported' : 'insecure');
      return;
    }
    const present = await whatIsThere();
    this.#fail(sources.filter(isBarred), 'barred');
    const open = sources.filter((source) => !isBarred(source));
    this.#fail(open.filter((source) => !present.has(KINDS[source])), 'none');
    const asked = open.filter((source) => present.has(KINDS[source]));
    if (!asked.length) return;
    const states = await permissionsOf(asked);
    this.#ask(asked.filter((source) => !['granted', 'denied'].includes(states.get(source))));
    try {
      const stream = await navigator.mediaDevices.getUserMedia(Object.assign({}, ...asked.map((source) => constraintsOf(source, present, facing))));
      this.#ask([]);
      for (const source of asked) this.#adopt(source, stream);
    } catch (error) {
      this.#ask([]);
      await this.#refused(asked, problemOf(error));
    }
    await this.#look(); // labels are available now
  }

  #ask(sources) {
    this.#asking = sources;
    for (const source of sources) this.#emit('change', source);
  }

  /** A request for two devices fails if one of them does: requests each that may still succeed on its own. */
  async #refused(sources, problem) {
    let again = sources.length > 1 ? sources : [];
    if (ANSWERS.includes(problem)) {
      // unless exactly one is recorded as denied, the user refused both: do not ask again
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

  /** The device is gone: replaces it with another of its kind, if there is one and the source was on. */
  async #ended(source) {
    this.#drop(source);
    if (!this.#wanted[source]) return this.#emit('change', source);
    this.#work = this.#work.then(() => this.#acquire([source]));
    await this.#work;
    if (this.#tracks[source]) this.#tellNow(source);
    else this.#emit('lost', source);
  }

  #fail(sources, problem) {
    for (const source of sources) {
      this.#problems[source] = problem;
      this.#emit('change', source);
    }
  }

  /** Updates `choices`; returns all devices. */
  async #look() {
    const found = await listed().catch(() => []);
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
    return found;
  }
}

const listed = async () => navigator.mediaDevices.enumerateDevices();

/** A set of the kinds of devices present, and of the device ids that the browser discloses. */
async function whatIsThere() {
  try {
    return new Set((await listed()).flatMap(({ kind, deviceId }) => [kind, deviceId]));
  } catch {
    return new Set(Object.values(KINDS)); // getUserMedia will report what is missing
  }
}

/** The browser's recorded permissions: source → 'granted', 'denied', 'prompt' or 'unknown'. */
async function permissionsOf(sources) {
  const state = async (name) => {
    try {
      return [name, (await navigator.permissions.query({ name })).state];
    } catch {
      return [name, 'unknown']; // not every browser supports these permission names
    }
  };
  return new Map(await Promise.all(sources.map(state)));
}
