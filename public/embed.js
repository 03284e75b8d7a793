/**
 * <video-room>: a call embedded in another site's page. See docs/embedding.md.
 *
 *   <script type="module" src="https://meet.example.org/embed.js"></script>
 *   <video-room token="eyJ…"></video-room>        or room="design-review" name="Sofia" if the server needs no token
 *
 * The call is this server's page in an iframe. The attributes are sent to it by postMessage, to this server's origin only,
 * and never in a URL, since URLs are logged. Changing an attribute restarts the call; removing the element ends it.
 *
 * Events (detail); they do not bubble
 *   joined       { room, name, peer }      you joined the call, or rejoined it
 *   participant  { peer, name, present }   somebody joined or left; those already present are reported after `joined`
 *   message      { topic, data }           data from your backend, sent with POST /rooms/{room}/messages
 *   left         {}                        you left
 *   ended        { code, message }         the call ended for another reason: a code of docs/protocol.md, or `embedding_refused`
 * leave() leaves the call.
 */

const SERVER = new URL('.', import.meta.url);
const ANSWER_MS = 15_000; // from the frame's `load` event to its first message
const FEATURES = [
  ...['camera', 'microphone', 'display-capture', 'speaker-selection', 'autoplay', 'fullscreen', 'picture-in-picture'],
  ...['screen-wake-lock', 'clipboard-write'],
]; // of browsers, which the call needs; frames have them only if they are allowed
const SHEET = window.CSSStyleSheet?.prototype.replaceSync ? new CSSStyleSheet() : null; // unlike a <style> element, not subject to the embedding page's CSP
SHEET?.replaceSync(':host { display: block; aspect-ratio: 16 / 9; } :host([hidden]) { display: none; } iframe { display: block; inline-size: 100%; block-size: 100%; border: 0; }');

class VideoRoom extends HTMLElement {
  static observedAttributes = ['room', 'token', 'name'];
  #frame = null;
  #port = null;
  #timer = 0;
  #stale = false;

  constructor() {
    super();
    const root = this.attachShadow({ mode: 'open' });
    if (SHEET) root.adoptedStyleSheets = [SHEET];
  }

  connectedCallback() {
    const frame = document.createElement('iframe');
    frame.allow = FEATURES.join('; ');
    frame.title = this.title || 'Video room';
    frame.src = SERVER.href;
    frame.addEventListener('load', () => this.#handOver());
    this.shadowRoot.replaceChildren(frame);
    this.#frame = frame;
  }

  disconnectedCallback() {
    this.#hangUp();
    this.shadowRoot.replaceChildren();
    this.#frame = null;
  }

  /** Changes made in the same task restart the call once. */
  attributeChangedCallback(name, before, now) {
    if (!this.#frame || before === now || this.#stale) return;
    this.#stale = true;
    queueMicrotask(() => {
      this.#stale = false;
      if (!this.#frame) return;
      this.disconnectedCallback();
      this.connectedCallback();
    });
  }

  leave() {
    this.#port?.postMessage({ type: 'leave' });
  }

  #handOver() {
    this.#hangUp();
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = ({ data: { type, detail } }) => {
      clearTimeout(this.#timer);
      if (type !== 'ready') this.dispatchEvent(new CustomEvent(type, { detail }));
    };
    this.#port = port1;
    const [room, token, name] = VideoRoom.observedAttributes.map((attribute) => this.getAttribute(attribute) ?? '');
    this.#frame.contentWindow.postMessage({ videoRoom: { room, token, name } }, SERVER.origin, [port2]);
    this.#timer = setTimeout(() => {
      const message = 'The server did not respond, or does not allow this page to embed it. SFU_ALLOWED_ORIGINS must list this page’s origin.';
      this.dispatchEvent(new CustomEvent('ended', { detail: { code: 'embedding_refused', message } }));
    }, ANSWER_MS);
  }

  #hangUp() {
    clearTimeout(this.#timer);
    this.#port?.close();
    this.#port = null;
  }
}

customElements.define('video-room', VideoRoom);
