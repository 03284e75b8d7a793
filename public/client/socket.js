/** One WebSocket of connection.js. A token bucket keeps the messages sent below the server's rate limit. */

const SUBPROTOCOLS = ['sfu.v1', 'batch']; // batch: this client takes the event `arrivals`
export const GIVEN_UP = 4408;
const RATE = { perSecond: 15, burst: 40, queue: 100 }; // under the server's 20 messages/s with bursts of 60

export class Socket {
  #socket;
  #queue = [];
  #credit = RATE.burst;
  #filled = performance.now();
  #timer = 0;

  /** `values` are sub-protocols that carry secrets, since URLs are logged. `on.closed(opened)`: whether it had opened. */
  constructor(url, values, on) {
    let opened = false;
    this.#socket = new WebSocket(url, [...SUBPROTOCOLS, ...values]);
    this.#socket.onopen = () => (opened = true);
    this.#socket.onclose = () => on.closed(opened);
    this.#socket.onmessage = ({ data: text }) => {
      const { event, data } = JSON.parse(text);
      on.message(event, data);
    };
  }

  /** Queues a message; false if the socket is not open or the queue is full. */
  send(event, data) {
    if (this.#socket.readyState !== WebSocket.OPEN || this.#queue.length >= RATE.queue) return false;
    this.#queue.push(JSON.stringify({ event, data }));
    this.#drain();
    return true;
  }

  /** Closes the socket; its callbacks are no longer called. GIVEN_UP as `code` keeps the session, otherwise that ends too. */
  close(code) {
    clearTimeout(this.#timer);
    this.#socket.onclose = this.#socket.onmessage = null;
    this.#socket.close(code);
  }

  #drain() {
    const now = performance.now();
    this.#credit = Math.min(RATE.burst, this.#credit + ((now - this.#filled) / 1000) * RATE.perSecond);
    this.#filled = now;
    for (; this.#queue.length && this.#credit >= 1; this.#credit--) this.#socket.send(this.#queue.shift());
    clearTimeout(this.#timer);
    if (this.#queue.length) this.#timer = setTimeout(() => this.#drain(), 1000 / RATE.perSecond);
  }
}
