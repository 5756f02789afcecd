import { afterEach, describe, expect, test, vi } from "vitest";
import { broughtBy, Session } from "../../src/page/session.ts";
import { Refusal } from "../../src/provider.ts";

const TOKEN = { type: "token", token: "secret" } as const;

function answer(status: number, body: object = {}) {
  const asked = vi.fn(
    async (_url: string, _init: RequestInit) => new Response(JSON.stringify(body), { status }),
  );
  vi.stubGlobal("fetch", asked);
  return asked;
}

afterEach(() => {
  vi.unstubAllGlobals();
});

describe("what an address brings", () => {
  test.each([
    ["#token=abc.def.ghi", { type: "token", token: "abc.def.ghi" }],
    ["#ticket=tk_1", { type: "ticket", ticket: "tk_1" }],
    ["#token=a&ticket=b", { type: "token", token: "a" }],
    ["#editor", { type: "nothing" }],
    ["?token=abc", { type: "nothing" }],
    ["", { type: "nothing" }],
  ])("in %s", (end, brought) => {
    expect(broughtBy(new URL(`http://localhost/${end}`))).toEqual(brought);
  });
});

describe("a session", () => {
  test("changes its token for a ticket, and shows it in a header alone", async () => {
    const asked = answer(201, { ticket: "tk_1", operations: ["read"] });
    const session = new Session("my room", TOKEN);

    const ticket = await session.ticket();

    expect([ticket, session.mayWrite]).toEqual(["tk_1", false]);
    const [url, init] = asked.mock.calls[0] ?? [];
    expect(url).toBe("/v1/tickets");
    expect(init?.headers).toMatchObject({ authorization: "Bearer secret" });
    expect(init?.body).toBe('{"room":"my room"}');
  });

  test("shows a ticket that it was given once", async () => {
    const asked = answer(500);
    const session = new Session("room", { type: "ticket", ticket: "tk_1" });

    const shown = [await session.ticket(), await session.ticket()];

    expect(shown).toEqual(["tk_1", ""]);
    expect(asked).not.toHaveBeenCalled();
  });

  test("needs nothing where everybody may come", async () => {
    answer(409);

    expect(await new Session("room", TOKEN).ticket()).toBe("");
  });

  test.each([
    [401, 4401],
    [403, 4403],
  ])("takes %i for a refusal", async (status, code) => {
    answer(status);

    const refusal = await new Session("room", TOKEN).ticket().catch((error: unknown) => error);

    expect(refusal).toBeInstanceOf(Refusal);
    expect((refusal as Refusal).code).toBe(code);
  });

  test.each([429, 500, 503])("takes %i for a reason to come again", async (status) => {
    answer(status);

    const failure = await new Session("room", TOKEN).ticket().catch((error: unknown) => error);

    expect(failure).not.toBeInstanceOf(Refusal);
  });

  test("forgets its token when it signs out", async () => {
    const asked = answer(201, { ticket: "tk_1" });
    const session = new Session("room", TOKEN);

    session.signOut();

    expect([session.hasToken, await session.ticket()]).toEqual([false, ""]);
    expect(asked).not.toHaveBeenCalled();
  });
});
