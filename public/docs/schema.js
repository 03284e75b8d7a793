/** What a schema of the description accepts: in words, as rows of a table, and as an example. */

import { code, linkTo, make, prose, row } from './make.js';

const DEPTH = 3;
const ID = '00000000-0000-4000-8000-000000000000';
const SAMPLES = {
  room_id: 'team-meeting', room: 'team-meeting', user_name: 'alice', user: 'alice', name: 'Team meeting',
  text: 'Hello!', data: { hello: 'world' }, secret: 'at least 32 bytes that nobody can guess', token: 'eyJ…', waiter_id: 'waiter',
};
const FORMATS = { uuid: ID, 'date-time': '2026-01-31T12:00:00Z', date: '2026-01-31' };

const nameOf = (ref) => ref.split('/').at(-1);

export class Schemas {
  constructor(components) {
    this.components = components;
  }

  /** The schema itself, for a reference to it; a description beside the reference is kept. */
  resolve(schema) {
    return schema?.$ref ? { ...this.components[nameOf(schema.$ref)], ...(schema.description && { description: schema.description }) } : (schema ?? {});
  }

  /** A row for each field, those of objects inside it with their whole path. */
  rows(schema, prefix = '', depth = 0) {
    const { properties = {}, required = [], items, type } = this.resolve(schema);
    if ([type].flat().includes('array') && items) return this.rows(items, `${prefix.replace(/\.$/u, '')}[].`, depth + 1);
    return Object.entries(properties).flatMap(([key, one]) => {
      const optional = required.includes(key) ? '' : 'optional';
      const text = [optional, this.resolve(one).description].filter(Boolean).join(': ');
      const own = row(code(prefix + key), typeOf(one), prose(text));
      return depth < DEPTH ? [own, ...this.rows(one, `${prefix}${key}.`, depth + 1)] : [own];
    });
  }

  /** A value that fits: of an object, what is needed, or else its first field. */
  example(schema, name = '') {
    const one = this.resolve(schema);
    if (one.example !== undefined) return one.example;
    if (one.properties) {
      const keys = one.required?.length ? one.required : Object.keys(one.properties).slice(0, 1);
      return Object.fromEntries(keys.map((key) => [key, this.example(one.properties[key], key)]));
    }
    if (one.enum) return one.enum[0];
    if (one.default !== undefined && one.default !== '') return one.default;
    if (one.anyOf) return this.example(one.anyOf[0], name);
    const type = [one.type ?? 'object'].flat()[0];
    if (type === 'array') return [this.example(one.items, name)];
    if (type === 'integer' || type === 'number') return one.minimum ?? 1;
    if (type === 'boolean') return true;
    return SAMPLES[name] ?? FORMATS[one.format] ?? (type === 'object' ? {} : 'text');
  }
}

/** A short description of the values that a schema accepts: a string or a node. */
export function typeOf(schema) {
  if (schema.$ref) return linkTo(nameOf(schema.$ref));
  if (schema.anyOf) {
    const words = schema.anyOf.flatMap((one) => [' or ', typeOf(one)]).slice(1);
    return words.length > 5 ? 'any JSON' : make('span', {}, ...words);
  }
  if (schema.enum) return schema.enum.join(' or ');
  const types = [schema.type ?? 'anything'].flat();
  if (types.includes('array') && schema.items) return make('span', {}, 'list of ', typeOf(schema.items));
  const words = types.map((type) => (type === 'string' && schema.format ? schema.format : type)).join(' or ');
  const { minimum, maximum } = schema;
  const range = maximum === undefined ? '' : `, ${minimum ?? 0} to ${maximum}`;
  const length = schema.maxLength ? `, up to ${schema.maxLength} characters` : '';
  return words + range + length + (schema.default === undefined ? '' : `, ${JSON.stringify(schema.default)} by default`);
}
