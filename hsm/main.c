/* hsmint-keeper - see spec/KEEPER.md. */
int main(void)
{
    return 0;
}
