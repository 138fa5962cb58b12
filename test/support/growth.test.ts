/** That growth is found, and that what grows in proportion passes. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { expectGrowth, NOT_AT_ALL, WITH_THE_SQUARE } from "./growth.ts";

setDefaultTimeout(600_000);

let sum = 0;
function work(steps: number): void {
  for (let step = 0; step < steps; step++) sum = (sum * 31 + step) | 0;
}

test("work in proportion, awaited or not, passes; with the square it does not", async () => {
  await expectGrowth(100_000_000, work);
  await expectGrowth(100_000_000, async (amount) => {
    await Promise.resolve();
    work(amount);
  });
  await expect(expectGrowth(30_000, (amount) => work(amount * amount))).rejects.toThrow();
});

test("work with the square passes where that is expected; with the cube it does not", async () => {
  await expectGrowth(20_000, (amount) => work(amount * amount), WITH_THE_SQUARE);
  await expect(expectGrowth(1000, (amount) => work(amount ** 3), WITH_THE_SQUARE)).rejects.toThrow();
});

test("work that stays as it is passes where that is expected; in proportion it does not", async () => {
  await expectGrowth(1, () => work(3_000_000), NOT_AT_ALL);
  await expect(expectGrowth(100_000_000, work, NOT_AT_ALL)).rejects.toThrow();
  expect(sum).toBeNumber();
});
