// Which handler serves a call.
import type { Context } from './context.ts';
import type { Handlers, MessageType, ServiceDefinition } from './service.ts';
import { Code, StatusError } from './status.ts';

/** A method with its handler, whose types have been forgotten: `register` has checked that they fit. */
export interface Route {
  readonly requestType: MessageType<unknown>;
  readonly requestStream: boolean;
  readonly responseType: MessageType<unknown>;
  readonly responseStream: boolean;
  readonly handler: (request: unknown, context: Context) => unknown;
}

export class Registry {
  readonly #services = new Map<string, Map<string, Route>>();

  /** Throws where a service of that name is registered already, or a handler is missing. */
  register<D extends ServiceDefinition>(definition: D, handlers: Handlers<D>, fullName: string): void {
    if (this.#services.has(fullName)) throw new Error(`service ${fullName} is registered already`);
    const routes = new Map<string, Route>();
    for (const [key, method] of Object.entries(definition.methods)) {
      const handler: unknown = handlers[key];
      if (typeof handler !== 'function') throw new TypeError(`service ${fullName} has no handler for ${key}`);
      const { requestType, requestStream, responseType, responseStream } = method;
      routes.set(method.name, {
        requestType,
        requestStream,
        responseType,
        responseStream,
        handler: (request, context) => Reflect.apply(handler, handlers, [request, context]) as unknown,
      });
    }
    this.#services.set(fullName, routes);
  }

  /** Throws a StatusError (Unimplemented) where there is none; the words are the Go library's. */
  find(service: string, method: string): Route {
    const routes = this.#services.get(service);
    if (routes === undefined) throw new StatusError(Code.Unimplemented, `service ${service}`);
    const route = routes.get(method);
    if (route === undefined) throw new StatusError(Code.Unimplemented, `method ${method}`);
    return route;
  }
}
