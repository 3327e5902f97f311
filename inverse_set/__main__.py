from inverse_set.cli import main

main()
