/* Runs one function of a library on memory from a file, and writes the memory back.
 *
 *     driver LIBRARY FUNCTION ARGUMENTS INPUT OUTPUT
 *     driver LIBRARY              the other words, with blanks, from lines of the standard input, again and again
 *
 * ARGUMENTS: how many, with a d behind it if the function returns a double.
 * INPUT: counts of blocks and of links (int64); per block its size, then its bytes; per link four int64: at
 * block a, byte b stands the address of block c, byte d; then the blocks and bytes of the ARGUMENTS that are
 * addresses (block -1: the plain number that follows). OUTPUT: the result (8 bytes), then all blocks; a link
 * that still stands where it was put is as it was in INPUT. So a word that only looks like an address (what was
 * in memory that nobody has written yet) does no harm, whether it is overwritten or not.
 * When all that is done, a line says where the function was loaded. */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ARGUMENTS int64_t, int64_t, int64_t, int64_t, int64_t, int64_t

static void fail(const char *what)
{
    fprintf(stderr, "driver: %s\n", what);
    exit(3);
}

static int64_t word(FILE *file)
{
    int64_t value;
    if (fread(&value, 8, 1, file) != 1) fail("the input ends early");
    return value;
}

static void run(void *library, const char *name, const char *kind, const char *input, const char *output)
{
    void *function = dlsym(library, name);
    if (!function) fail(dlerror());
    FILE *in = fopen(input, "rb");
    if (!in) fail("no input");
    int64_t blocks = word(in), links = word(in);
    char **at = calloc((size_t)blocks + 1, sizeof *at);
    int64_t *size = calloc((size_t)blocks + 1, sizeof *size), *link = calloc((size_t)links * 4 + 1, 8);
    int64_t *before = calloc((size_t)links + 1, 8), *linked = calloc((size_t)links + 1, 8);
    for (int64_t i = 0; i < blocks; i++) {
        size[i] = word(in);
        at[i] = aligned_alloc(64, ((size_t)size[i] + 127) & ~(size_t)63);
        if (size[i] && fread(at[i], 1, (size_t)size[i], in) != (size_t)size[i]) fail("the input ends early");
    }
    for (int64_t i = 0; i < 4 * links; i++) link[i] = word(in);
    for (int64_t i = 0; i < links; i++) {
        int64_t *l = link + 4 * i;
        linked[i] = (int64_t)(at[l[2]] + l[3]);
        memcpy(&before[i], at[l[0]] + l[1], 8);
        memcpy(at[l[0]] + l[1], &linked[i], 8);
    }
    int64_t a[6] = {0}, result;
    int arguments = atoi(kind);
    for (int i = 0; i < arguments; i++) {
        int64_t block = word(in), value = word(in);
        a[i] = block < 0 ? value : (int64_t)(at[block] + value);
    }
    if (strchr(kind, 'd')) {
        double number = ((double (*)(ARGUMENTS))function)(a[0], a[1], a[2], a[3], a[4], a[5]);
        memcpy(&result, &number, 8);
    } else {
        result = ((int64_t(*)(ARGUMENTS))function)(a[0], a[1], a[2], a[3], a[4], a[5]);
    }
    for (int64_t i = 0; i < links; i++) {
        char *place = at[link[4 * i]] + link[4 * i + 1];
        if (!memcmp(place, &linked[i], 8)) memcpy(place, &before[i], 8);
    }
    FILE *out = fopen(output, "wb");
    if (!out) fail("no output");
    fwrite(&result, 8, 1, out);
    for (int64_t i = 0; i < blocks; i++) {
        fwrite(at[i], 1, (size_t)size[i], out);
        free(at[i]);
    }
    if (fclose(out) || fclose(in)) fail("the output cannot be written");
    free(at), free(size), free(link), free(before), free(linked);
    printf("%p\n", function);
    fflush(stdout);
}

int main(int count, char **words)
{
    if (count != 2 && count != 6) fail("one argument or five");
    void *library = dlopen(words[1], RTLD_NOW);
    if (!library) fail(dlerror());
    if (count == 6) {
        run(library, words[2], words[3], words[4], words[5]);
        return 0;
    }
    char name[100], kind[10], input[1000], output[1000];
    while (scanf("%99s %9s %999s %999s", name, kind, input, output) == 4) run(library, name, kind, input, output);
    return 0;
}
