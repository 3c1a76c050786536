/**
 * A REST app on Parley's port: `/orders` is its own, all else is Parley's. Each new order is
 * published to the room `orders`.
 *
 *     deno run -A tests/examples/rest_beside.ts
 *     curl -d '{"item":"tea"}' http://localhost:8000/orders
 *
 * @module
 */
import { createParley, type Parley } from "../../handlers/parley.ts";

/** An order, as the app keeps it. */
export interface Order {
  id: number;
  item: string;
}

/** Makes the app; what it does not know, `parley` answers. */
export function ordersBeside(parley: Parley): Parley["fetch"] {
  const orders: Order[] = [];

  async function add(request: Request): Promise<Response> {
    const body = await request.json().catch(() => undefined);
    const item = body?.item;
    if (typeof item !== "string") {
      return Response.json({ message: 'An order is {"item":"…"}.' }, { status: 400 });
    }
    const order = { id: orders.length + 1, item };
    orders.push(order);
    await parley.publish("orders", order, { sender: "shop" });
    return Response.json(order, { status: 201 });
  }

  return (request, info) => {
    if (new URL(request.url).pathname !== "/orders") return parley.fetch(request, info);
    return request.method === "POST" ? add(request) : Promise.resolve(Response.json(orders));
  };
}

if (import.meta.main) Deno.serve(ordersBeside(createParley({ log: console })));
