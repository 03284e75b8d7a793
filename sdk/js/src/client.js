/** The client: tokens, rooms, participants and sessions. */

import { ApiError } from './errors.js';
import { segment, Transport } from './transport.js';

/** Asks a server with an API key. Every method may throw an ApiError. */
export class Client {
  #transport;

  constructor(baseUrl, key, options) {
    this.#transport = new Transport(baseUrl, key, options);
    this.tokens = new Tokens(this.#transport);
    this.rooms = new Rooms(this.#transport);
    this.participants = new Participants(this.#transport);
    this.sessions = new Sessions(this.#transport);
  }

  link(token, { preview = true } = {}) {
    return `${this.#transport.baseUrl}/?${new URLSearchParams({ token, ...(!preview && { preview: 'off' }) })}`;
  }

  async request(method, path, body, options) {
    return (await this.#transport.send(method, path, body, options)).body;
  }
}

class Resource {
  constructor(transport) {
    Object.defineProperty(this, 'transport', { value: transport }); // not listed, so that logs do not show it
  }

  async ask(method, path, body, options) {
    return (await this.transport.send(method, path, body, options)).body;
  }
}

class Tokens extends Resource {
  issue(roomId, userName, wanted = {}, options) {
    return this.ask('POST', '/tokens', { room_id: roomId, user_name: userName, ...wanted }, options);
  }

  async bulk(requests, options) {
    return (await this.ask('POST', '/tokens/bulk', { tokens: requests }, options)).items;
  }

  inspect(token) {
    return this.ask('POST', '/tokens/inspect', { token });
  }

  get(tokenId) {
    return this.ask('GET', `/tokens/${segment(tokenId)}`);
  }

  list(filters = {}) {
    return this.transport.pages('/tokens', filters);
  }

  async revoke(tokenId) {
    await this.ask('DELETE', `/tokens/${segment(tokenId)}`);
  }
}

class Rooms extends Resource {
  create(roomId, settings = {}, options) {
    return this.ask('POST', '/rooms', { room_id: roomId, ...settings }, options);
  }

  async getOrCreate(roomId, settings = {}) {
    try {
      return await this.create(roomId, settings);
    } catch (error) {
      if (!(error instanceof ApiError) || error.code !== 'room_exists') throw error;
    }
    return this.get(roomId);
  }

  get(roomId) {
    return this.ask('GET', `/rooms/${segment(roomId)}`);
  }

  async getVersioned(roomId) {
    const { body, headers } = await this.transport.send('GET', `/rooms/${segment(roomId)}`);
    return { room: body, etag: headers.get('ETag') ?? '' };
  }

  list() {
    return this.transport.pages('/rooms');
  }

  change(roomId, settings, options) {
    return this.ask('PUT', `/rooms/${segment(roomId)}`, settings, options);
  }

  async delete(roomId, options) {
    await this.ask('DELETE', `/rooms/${segment(roomId)}`, undefined, options);
  }

  async endCall(roomId) {
    await this.ask('POST', `/rooms/${segment(roomId)}/end`);
  }
}

class Participants extends Resource {
  async list(roomId) {
    return (await this.ask('GET', `/rooms/${segment(roomId)}/participants`)).items;
  }

  async mute(roomId, sessionId, source = 'microphone') {
    await this.ask('POST', `/rooms/${segment(roomId)}/participants/${segment(sessionId)}/mute`, { source });
  }

  async remove(roomId, sessionId) {
    await this.ask('DELETE', `/rooms/${segment(roomId)}/participants/${segment(sessionId)}`);
  }
}

class Sessions extends Resource {
  list(filters = {}) {
    return this.transport.pages('/sessions', filters);
  }

  get(sessionId) {
    return this.ask('GET', `/sessions/${segment(sessionId)}`);
  }

  async roomsOf(userName) {
    return (await this.ask('GET', `/users/${segment(userName)}/rooms`)).items;
  }
}
